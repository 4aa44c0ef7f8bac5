"""What a listener answers without a backend: ACME challenges, ours or from a directory, and the redirect to https.

Knows one request and the listeners. Which requests these are says leases/routes.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import trio

from lbproxy.errors import ProxyError
from lbproxy.model import ListenerView
from lbproxy.wire.body import Body
from lbproxy.wire.head import RequestHead, ResponseHead
from lbproxy.worker.context import Context
from lbproxy.worker.handover import ClientSide
from lbproxy.worker.leases.router import Router
from lbproxy.worker.leases.routes import ACME_CHALLENGES, token_in
from lbproxy.worker.reply import Reply
from lbproxy.worker.task.challenge_file import read_challenge

HTTPS_PORT = 443


class Exchange(Protocol):
    """What is asked of the exchange that is answered."""

    context: Context
    client: ClientSide
    head: RequestHead
    body: Body | None
    reply: Reply
    keep: bool
    linger: bool
    status: int
    response_bytes: int

    def take_payload(self) -> None: ...
    def own_lines(self, head: ResponseHead) -> bytes: ...


@dataclass(frozen=True, slots=True)
class OwnAnswer:
    status: int
    reason: bytes
    lines: tuple[bytes, ...] = ()
    body: bytes = b""


async def answer_itself(exchange: Exchange) -> None:
    """Raises ProxyError, Refused or ClientGone."""
    client, head = exchange.client, exchange.head
    exchange.body = body = client.body_of(head, client.listener.settings.limits.body_bytes)
    exchange.take_payload()
    answer = await _answer(client.listener, head, exchange.context.router)
    if not body.done:  # nobody wants the rest of it
        exchange.keep = False
        exchange.linger = True
    exchange.keep = exchange.keep and not exchange.context.stopping.is_set()
    made = ResponseHead(
        *(answer.status, answer.reason, 1, True, len(answer.body), False),
        *([*answer.lines], {}),
    )
    exchange.status = answer.status
    exchange.reply.head(made, exchange.own_lines(made), keep=exchange.keep)
    if head.method != b"HEAD":
        exchange.response_bytes = len(answer.body)
        exchange.reply.data(answer.body)
    exchange.reply.end(())
    await exchange.reply.flush(client.listener.settings.timeouts.body_s)


async def _answer(listener: ListenerView, head: RequestHead, router: Router) -> OwnAnswer:
    directory, listeners = listener.settings.acme_challenges, router.table.listeners
    is_challenge = head.target.startswith(ACME_CHALLENGES)
    token = token_in(head.target) if is_challenge else b""
    found = router.challenges.get(token) if listener.settings.tls is None else None
    if not is_challenge or (directory is None and found is None):
        return OwnAnswer(308, b"Permanent Redirect", (b"Location: " + https_address(head, listeners),))
    if head.method not in (b"GET", b"HEAD"):
        return OwnAnswer(405, b"Method Not Allowed", (b"Allow: GET, HEAD",))
    if found is None and directory is not None:
        # In a thread: a disk that does not answer must not stop the worker.
        found = await trio.to_thread.run_sync(read_challenge, directory, token, abandon_on_cancel=True)
    if found is None:
        raise ProxyError(404, "destination_not_found", "there is no such challenge")
    return OwnAnswer(200, b"OK", (b"Content-Type: text/plain", b"Cache-Control: no-store"), found)


def https_address(head: RequestHead, listeners: Sequence[ListenerView]) -> bytes:
    """The request's address with https. A client that names no port has come to a port 80 in front of us, and finds 443
    beside it; one that names a port gets that of the first listener with tls. Raises ProxyError."""
    if not head.host:
        raise ProxyError(400, "http_request_error", "no Host that could be redirected")
    bracket = head.host.find(b"]") + 1
    name, colon, _ = head.host[bracket:].partition(b":")
    ports = [view.settings.address.port for view in listeners if view.settings.tls is not None]
    port = b":%d" % ports[0] if colon and ports and ports[0] not in (0, HTTPS_PORT) else b""
    target = head.target if head.target.startswith(b"/") else b"/"
    return b"https://%b%b%b%b" % (head.host[:bracket], name, port, target)
