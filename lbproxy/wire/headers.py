"""The heads that lbproxy sends: one function per direction, facts in, bytes out (CONTRACT.md 4).

What may be passed on has been decided by head.py; framing, Host, X-Forwarded-*, X-Request-ID and Via are made here and
nowhere else. Knows no socket and no clock. A hot path: one join per head, and what is the same for a whole
connection is made once in ClientFacts.
"""

import random
import re
from binascii import hexlify
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from lbproxy.wire import forwarded
from lbproxy.wire.forwarded import Hop, Trust
from lbproxy.wire.head import RequestHead, ResponseHead
from lbproxy.wire.lines import PASSED

VIA = b"Via: %b\r\n" % PASSED
# A request id goes into our log and to the backend: whatever a trusted peer calls it, it is short and plain.
_plain_id = re.compile(rb"[-A-Za-z0-9._~+/=:@]{1,128}").fullmatch
_SPELT = {b"x-real-ip": b"X-Real-IP", b"forwarded": b"Forwarded"}
_NOBODY = Trust()


class Framing(IntEnum):
    """How the end of a response body is told to the client."""

    NONE = 0  # no body follows: HEAD, 1xx, 204, 304
    LENGTH = 1
    CHUNKED = 2
    CLOSE = 3  # for HTTP/1.0 clients, where no length is known


@dataclass(frozen=True, slots=True)
class ClientFacts:
    """What is known of a client's connection before it says anything."""

    ip: bytes  # b"" for a peer without one (unix socket)
    trusted: bool
    proto: bytes  # b"http" or b"https"
    writes_forwarded: bool = False  # RFC 7239, beside X-Forwarded-*; read from trusted peers, too
    trust: Trust = field(default=_NOBODY, repr=False)
    port: int = field(default=0, compare=False)  # that a PROXY header announced; 0: the socket knows
    certificate: bytes = b""  # the lines that tell of the client's certificate (client_certificate.py)
    counted: tuple[int, ...] = field(default=(), compare=False)  # where its connections are (client_counts.py)
    forwarded: bytes = field(init=False, repr=False, compare=False)  # the lines that only the connection decides
    varies: bool = field(init=False, repr=False, compare=False)  # what else is said of it differs with the request

    def __post_init__(self) -> None:
        object.__setattr__(self, "varies", self.trusted or self.writes_forwarded)
        ours = b"X-Forwarded-For: %b\r\n" % self.ip if self.ip else b""
        object.__setattr__(self, "forwarded", ours + b"X-Forwarded-Proto: %b\r\n%b" % (self.proto, self.certificate))


def _ids(draw: Callable[[int], int] = random.getrandbits) -> Iterator[bytes]:
    """Request ids of 32 hexadecimal digits, drawn 64 at a time: 0.12 us each instead of 0.17.

    An id tells requests apart and protects nothing: the plain generator does, at a twentieth of os.urandom's price.
    """
    while True:
        digits = hexlify(draw(64 * 128).to_bytes(64 * 16, "big"))
        for at in range(0, 64 * 32, 32):
            yield digits[at : at + 32]


new_request_id = _ids().__next__


def request_id_of(head: RequestHead, client: ClientFacts) -> bytes:
    """The id that a trusted peer gave the request, else a new one."""
    if client.trusted:
        given = head.fields.get(b"x-request-id")
        if given is not None and len(given) == 1 and _plain_id(given[0]):
            return given[0]
    return new_request_id()


def client_of(head: RequestHead, client: ClientFacts) -> bytes:
    """The address of who sent the request: of the peer, or what a trusted peer says of its own. b"": it has none.

    X-Forwarded-For decides where there are both fields: a proxy that knows one of them only mostly knows this one, and
    passes the other on as it came.
    """
    if not client.trusted:
        return client.ip
    fields = head.fields
    if given := fields.get(b"x-forwarded-for"):
        return client.trust.client_of(client.ip, given)
    if client.writes_forwarded and (given := fields.get(b"forwarded")):
        nodes = [hop.node for hop in forwarded.hops_of(given) or ()]
        return client.trust.find(nodes, client.ip)[0]
    return client.ip


def request_to_backend(
    head: RequestHead, client: ClientFacts, request_id: bytes, upgrades: Sequence[bytes] = ()
) -> bytes:
    """The complete head, with the empty line. `upgrades`: the protocols that the backend may switch to."""
    host = head.host
    if client.varies:
        ours = _forwarded_by_trusted(head, client) if client.trusted else _with_forwarded(head, client)
    elif host:
        ours = b"%bX-Forwarded-Host: %b\r\n" % (client.forwarded, host)
    else:
        ours = client.forwarded
    length = head.length
    if length is not None:
        framing = b"Content-Length: %d\r\n" % length
    elif head.chunked:
        framing = b"Transfer-Encoding: chunked\r\n"
    else:
        framing = b""
    if head.expects_continue or head.wants_trailers:
        framing += _asked_for(head)
    if upgrades:
        framing += b"Connection: Upgrade\r\nUpgrade: %b\r\n" % b", ".join(upgrades)
    via = VIA if b"via" not in head.fields else via_behind(head.fields[b"via"])
    return b"\r\n".join(
        (
            b"%b %b HTTP/1.1" % (head.method, head.target),
            b"Host: " + host,
            *head.lines,
            b"%bX-Request-ID: %b\r\n%b%b\r\n" % (ours, request_id, via, framing),
        )
    )


def _asked_for(head: RequestHead) -> bytes:
    """What the client asked of the next hop, and may. As in Go's proxy, TE comes without `Connection: TE`: the next
    hop is the backend itself, and everything else that Connection can say is ours.
    """
    asked = b"Expect: 100-continue\r\n" if head.expects_continue else b""
    if head.wants_trailers:
        asked += b"TE: trailers\r\n"
    return asked


def _forwarded_by_trusted(head: RequestHead, client: ClientFacts) -> bytes:
    """What a trusted peer says of where the request comes from, with the peer itself added."""
    given = {name: b", ".join(filter(None, values)) for name, values in head.fields.items()}
    if client.writes_forwarded:
        _agree(given, head.host, client)
    chain = b", ".join(filter(None, (given.get(b"x-forwarded-for", b""), client.ip)))
    made = {
        b"X-Forwarded-For": chain,
        b"X-Forwarded-Proto": given.get(b"x-forwarded-proto") or client.proto,
        b"X-Forwarded-Host": given.get(b"x-forwarded-host") or head.host,
    }
    for name, value in given.items():
        if name.startswith(b"x-forwarded-") or name in _SPELT:
            made.setdefault(_SPELT.get(name) or name.title(), value)
    return b"".join(b"%b: %b\r\n" % pair for pair in made.items() if pair[1]) + client.certificate


def _with_forwarded(head: RequestHead, client: ClientFacts) -> bytes:
    """The lines of any client that is not trusted, and Forwarded."""
    host = b"X-Forwarded-Host: %b\r\n" % head.host if head.host else b""
    hop = Hop(forwarded.node_of(client.ip), head.host, client.proto)
    return b"%b%bForwarded: %b\r\n" % (client.forwarded, host, forwarded.spell([hop]))


def _agree(given: dict[bytes, bytes], host: bytes, client: ClientFacts) -> None:
    """Make Forwarded and X-Forwarded-* of what a trusted peer says in one of them, so that a backend which reads the
    other one knows the same client. A Forwarded that is malformed is dropped: ours would be a part of its mistake."""
    chain = given.get(b"x-forwarded-for", b"")
    hops = forwarded.hops_of([given.pop(b"forwarded", b"")]) or []
    if hops and not chain:
        given[b"x-forwarded-for"] = b", ".join(
            forwarded.address_of(hop.node) or forwarded.node_of(hop.node) for hop in hops
        )
        _, number = client.trust.find([hop.node for hop in hops], client.ip)
        if number < len(hops):
            given.setdefault(b"x-forwarded-host", hops[number].host)
            given.setdefault(b"x-forwarded-proto", hops[number].proto)
    elif chain and not hops:
        nodes = forwarded.nodes_of([chain])
        _, number = client.trust.find(nodes, client.ip)
        hops = [Hop(forwarded.node_of(node)) for node in nodes]
        if number < len(hops):
            told = given.get(b"x-forwarded-host", b""), given.get(b"x-forwarded-proto", b"")
            hops[number] = Hop(hops[number].node, *told)
    ours = Hop(forwarded.node_of(client.ip), host, client.proto)
    given[b"forwarded"] = forwarded.spell([*hops, ours])


def via_behind(values: list[bytes]) -> bytes:
    """The line, with its CRLF, behind the Via of earlier hops."""
    return b"Via: %b\r\n" % b", ".join([*filter(None, values), PASSED])


def framing_for_client(head: ResponseHead, request: RequestHead) -> Framing:
    """How the body of this response is framed for the client that asked."""
    status = head.status
    if status < 200 or status == 204 or status == 304 or request.method == b"HEAD":
        return Framing.NONE
    if head.length is not None:
        return Framing.LENGTH
    return Framing.CHUNKED if request.minor else Framing.CLOSE


def is_dated(head: ResponseHead) -> bool:
    """Whether the backend said when it answered. Interim responses need not (RFC 9110, 6.6.1)."""
    return head.status < 200 or any(line[:5].lower() == b"date:" for line in head.lines)


def hsts_line(seconds: float | None) -> bytes:
    """Strict-Transport-Security (RFC 6797, 6.1), behind a CRLF; b"" without an age."""
    return b"" if seconds is None else b"\r\nStrict-Transport-Security: max-age=%d" % seconds


def sets_hsts(head: ResponseHead) -> bool:
    """Whether the backend has set Strict-Transport-Security."""
    return b"\nstrict-transport-security:" in b"\n".join((b"", *head.lines)).lower()


def response_to_client(
    head: ResponseHead, request: RequestHead, own: bytes, framing: Framing, keep_alive: bool
) -> bytes:
    """The complete head, with the empty line. A body that only the close ends says so, whatever `keep_alive` is.

    `own`: what belongs to this answer alone: the request id, and further lines, each behind a CRLF.

    A NONE framing keeps the length that HEAD or 304 tells of; 1xx and 204 have none (RFC 9110, 8.6).
    """
    status = head.status
    length = head.length
    if framing is Framing.CHUNKED:
        ours = b"Transfer-Encoding: chunked\r\n"
    elif framing is Framing.CLOSE:
        ours = b""
        keep_alive = False
    elif length is not None and status >= 200 and status != 204:
        ours = b"Content-Length: %d\r\n" % length
    else:
        ours = b""
    if status < 200:
        if head.upgrade:
            ours = b"Connection: Upgrade\r\nUpgrade: %b\r\n" % head.upgrade
    elif not keep_alive:
        ours += b"Connection: close\r\n"
    elif not request.minor:
        ours += b"Connection: keep-alive\r\n"
    via = VIA if b"via" not in head.fields else via_behind(head.fields[b"via"])
    return b"\r\n".join(
        (
            b"HTTP/1.1 %d %b" % (status, head.reason),
            *head.lines,
            b"X-Request-ID: %b\r\n%b%b\r\n" % (own, via, ours),
        )
    )
