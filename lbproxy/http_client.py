"""One small HTTP/1.1 client: one connection, one request, one answer. For probes and webhooks.

Heads and bodies are read by wire/, as strictly as those of backends. Follows no redirect, keeps no connection, and has
no time limit of its own: the caller has.
"""

import contextlib
import os
import socket
from dataclasses import dataclass

import trio

from lbproxy.address import Address
from lbproxy.errors import LbproxyError
from lbproxy.settings import TargetTls
from lbproxy.tls.contexts import BadCertificate
from lbproxy.tls.targets import target_context
from lbproxy.wire.bare_lf import with_crlf
from lbproxy.wire.body import Body, response_body
from lbproxy.wire.head import Lines, ResponseHead, read_response, response_head_end

RECEIVE_BYTES = 16384
MOST_INTERIM = 100


class NoAnswer(LbproxyError):
    """There was no complete head of an answer, for the reason in words."""


class CannotAsk(LbproxyError):
    """This process has no means left to ask: that says nothing about the other end."""


@dataclass(frozen=True, slots=True)
class Ask:
    method: str
    target: str
    fields: tuple[tuple[str, str], ...]  # with Host; framing fields and Connection are added
    body: bytes = b""
    greeting: bytes = b""  # in front of the request: a PROXY header

    def encoded(self) -> bytes:
        length = (("Content-Length", str(len(self.body))),) if self.body or self.method == "POST" else ()
        fields = (*self.fields, *length, ("Connection", "close"))
        lines = [f"{self.method} {self.target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields), "", ""]
        return self.greeting + "\r\n".join(lines).encode() + self.body


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes  # its beginning


async def connect(
    address: Address, *, secure: bool = False, tls: TargetTls | None = None, protocol: str = ""
) -> trio.abc.Stream:
    """`secure`, or a secure address: TLS; the certificate must be good for the address's host, as `tls` says, and
    `protocol` is asked for by ALPN. Raises NoAnswer, CannotAsk and OSError."""
    stream = await _connect(address)
    if not secure and not address.secure:
        return stream
    rules = tls if tls is not None else TargetTls()
    name = rules.server_name or address.server_name
    try:
        secured = trio.SSLStream(stream, target_context(rules, protocol), server_hostname=name, https_compatible=True)
    except BadCertificate as exc:
        await trio.aclose_forcefully(stream)
        raise NoAnswer(f"TLS: {exc}") from None
    try:
        await secured.do_handshake()
    except BaseException as exc:
        await trio.aclose_forcefully(secured)
        if isinstance(exc, trio.BrokenResourceError):
            raise NoAnswer(f"TLS: {reason_of(exc.__cause__)}") from None
        raise
    if protocol and secured.selected_alpn_protocol() != protocol:
        await trio.aclose_forcefully(secured)
        raise NoAnswer(f"TLS: the server does not agree on {protocol}")
    return secured


async def ask(
    stream: trio.abc.Stream, request: Ask, *, most_bytes: int, body_s: float, accept_bare_lf: bool = False
) -> Answer:
    """`body`: at most `most_bytes` of what comes within `body_s`; a body that breaks off is not waited for.

    Raises NoAnswer, wire.head.Refused for an answer that HTTP does not allow, trio.BrokenResourceError.
    """
    await stream.send_all(request.encoded())
    head, rest = await _receive_head(stream, accept_bare_lf=accept_bare_lf)
    body = response_body(head, request.method.encode())
    return Answer(head.status, await _receive_body(stream, body, rest, most_bytes, body_s))


def reason_of(exc: BaseException | None) -> str:
    """An exception in words for the operator."""
    if isinstance(exc, OSError) and exc.errno is not None:
        if isinstance(exc, socket.gaierror):
            return str(exc.strerror)
        if isinstance(exc, FileNotFoundError):
            return "its socket is not there yet"
        verification = getattr(exc, "verify_message", "")  # of an ssl error, whose number is none of the system
        return verification or getattr(exc, "reason", "") or os.strerror(exc.errno).lower()
    return str(exc) if exc is not None else "connection lost"


async def _connect(address: Address) -> trio.SocketStream:
    if address.path is not None:
        return await _connect_to(socket.AF_UNIX, address.path)
    found = await trio.socket.getaddrinfo(address.host or "127.0.0.1", address.port, type=socket.SOCK_STREAM)
    error: Exception = NoAnswer("no such host")
    for family, _, _, _, where in found:
        try:
            return await _connect_to(family, where)
        except (OSError, NoAnswer) as exc:
            error = exc
    raise error


async def _connect_to(family: int, where: object) -> trio.SocketStream:
    try:
        connection = trio.socket.socket(family, socket.SOCK_STREAM)
    except OSError as exc:  # no descriptors left here
        raise CannotAsk(reason_of(exc)) from None
    try:
        await connection.connect(where)
        # A connect to a dead port of the ephemeral range can connect to itself (simultaneous open).
        if family != socket.AF_UNIX and connection.getsockname() == connection.getpeername():
            raise NoAnswer("connection refused (it connected to itself)")
    except BaseException:
        connection.close()
        raise
    return trio.SocketStream(connection)


async def _receive_head(stream: trio.abc.ReceiveStream, *, accept_bare_lf: bool) -> tuple[ResponseHead, bytes]:
    """The head of the final response, and the bytes received behind it."""
    lines, raw, looked, interim = Lines(), b"", 0, 0
    while True:
        if accept_bare_lf:
            raw, looked = with_crlf(raw), 0
        end = response_head_end(raw, looked) if raw else -1
        if end < 0:
            looked = len(raw)
            data = await stream.receive_some(RECEIVE_BYTES)
            if not data:
                raise NoAnswer("the answer broke off" if raw or interim else "closed without an answer")
            raw += data
            continue
        head = read_response(raw[:end], lines)
        raw, looked = raw[end:], 0
        if head.status >= 200 or head.status == 101:
            return head, raw
        interim += 1
        if interim > MOST_INTERIM:
            raise NoAnswer("interim responses without end")


async def _receive_body(
    stream: trio.abc.ReceiveStream, body: Body, data: bytes, most_bytes: int, body_s: float
) -> bytes:
    payload = body.feed(data)
    with trio.move_on_after(body_s), contextlib.suppress(trio.BrokenResourceError):
        while not body.done and len(payload) < most_bytes and (more := await stream.receive_some(RECEIVE_BYTES)):
            payload += body.feed(bytes(more))
    return payload
