"""The webhook of [events]: each event is one POST, signed if there is a secret.

Knows the URL, and never shows it. The receiver has taken an event when it answers 2xx; a redirect is not followed.
"""

import hashlib
import hmac

import trio

from lbproxy import __version__
from lbproxy.control.event_sink import Delivery, NotDelivered
from lbproxy.errors import LbproxyError
from lbproxy.http_client import Ask, ask, connect, reason_of
from lbproxy.settings import Secret
from lbproxy.wire.head import Refused
from lbproxy.wire.url import HttpUrl

MOST_BYTES = 64 * 1024  # of the answer, which nobody looks at: read so that the receiver sees no reset
BODY_S = 0.25


class Webhook:
    def __init__(self, url: str, secret: Secret | None) -> None:
        """`url` is one that HttpUrl.parse takes."""
        self._url = HttpUrl.parse(url)
        self._secret = secret

    async def deliver(self, event: Delivery) -> None:
        """Raises NotDelivered. The caller limits the time."""
        url = self._url
        try:
            async with await connect(url.address, secure=url.is_secure) as stream:
                request = Ask("POST", url.target, (("Host", url.host), *self._fields(event)), event.body)
                answer = await ask(stream, request, most_bytes=MOST_BYTES, body_s=BODY_S)
        except trio.BrokenResourceError as exc:
            raise NotDelivered(reason_of(exc.__cause__)) from None
        except Refused as exc:
            raise NotDelivered(f"the answer is malformed: {exc.reason}") from None
        except (OSError, LbproxyError) as exc:
            raise NotDelivered(reason_of(exc)) from None
        if 300 <= answer.status < 400:
            raise NotDelivered(f"the answer was {answer.status}: redirects are not followed")
        if not 200 <= answer.status < 300:
            raise NotDelivered(f"the answer was {answer.status}")

    def _fields(self, event: Delivery) -> tuple[tuple[str, str], ...]:
        fields = (
            ("User-Agent", f"lbproxy/{__version__}"),
            ("Content-Type", "application/json"),
            ("X-Lbproxy-Event", event.name),
            ("X-Lbproxy-Delivery", event.id),  # the same for each try: a receiver can drop what it has already
        )
        if self._secret is None:
            return fields
        key = self._secret.value.encode(errors="surrogateescape")
        return (*fields, ("X-Lbproxy-Signature", f"sha256={hmac.new(key, event.body, hashlib.sha256).hexdigest()}"))
