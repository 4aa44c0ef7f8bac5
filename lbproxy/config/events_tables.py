"""The tables of [events]; see schema.py."""

from typing import Annotated, ClassVar

from pydantic import PlainValidator

from lbproxy.config import kinds, secret_types, values
from lbproxy.config.event_names import event_pattern
from lbproxy.config.kinds import Facts
from lbproxy.config.table import WHOLE, Read, Table
from lbproxy.settings import Secret

Channel = Annotated[str, Read(values.filled), kinds.TEXT]
EventPattern = Annotated[str, Read(event_pattern), kinds.EVENT_PATTERN]
AnySecret = Annotated[Secret, PlainValidator(secret_types.any_secret), kinds.SECRET]
WebhookUrl = Annotated[Secret, PlainValidator(secret_types.webhook_url), kinds.WEBHOOK_URL]
RedisUrl = Annotated[Secret, PlainValidator(secret_types.redis_url), kinds.REDIS_URL]


class WebhookTable(Table):
    """An HTTP server that gets events as POSTs, each a JSON object."""

    applies: ClassVar[str] = WHOLE

    url: Annotated[WebhookUrl, Facts("env:HOOK_URL")]
    """Where the events go. Redirects are not followed; with https the certificate is verified."""
    events: Annotated[list[EventPattern] | None, Facts(["reload.*", "backend.failed"])] = None
    """The events that are sent; backends' output only where "backend.output" is named."""
    secret: Annotated[AnySecret | None, Facts("env:HOOK_SECRET", "none: not signed")] = None
    """The key that signs each body: X-Lbproxy-Signature is "sha256=" and the HMAC in hexadecimal digits."""


class RedisTable(Table):
    """A Redis channel that events are published in, each a JSON object. Needs the extra `redis`."""

    applies: ClassVar[str] = WHOLE

    url: Annotated[RedisUrl, Facts("redis://127.0.0.1:6379/0")]
    """The server, with user, password and database."""
    channel: Annotated[Channel | None, Facts("lbproxy")] = None
    """The channel."""
    events: Annotated[list[EventPattern] | None, Facts(["reload.*", "backend.failed"])] = None
    """The events that are published; backends' output only where "backend.output" is named."""


class EventsTable(Table):
    """Where events go besides the log: in order, with three tries of 5 s each; nothing waits for it."""

    applies: ClassVar[str] = WHOLE

    webhook: WebhookTable | None = None
    redis: RedisTable | None = None
