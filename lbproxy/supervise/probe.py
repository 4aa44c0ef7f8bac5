"""One probe of a backend, and its result in words for the operator.

Knows an address and the pool's health settings. policy/health.py counts the results.
"""

import contextlib
import os
import socket
from dataclasses import dataclass

import trio

from lbproxy.address import Address
from lbproxy.settings import HealthSettings
from lbproxy.wire.body import Body, response_body
from lbproxy.wire.head import Lines, Refused, ResponseHead, read_response, response_head_end

PROBE_BODY_BYTES = 64 * 1024  # read so that the backend does not see a reset; shown are only:
SHOWN_BYTES = 200
BODY_S = 0.25
INTERIM = 100


@dataclass(frozen=True, slots=True)
class ProbeResult:
    passed: bool | None  # None: the probe could not be sent, which says nothing about the backend
    detail: str


async def probe(address: Address, health: HealthSettings) -> ProbeResult:
    """Raises nothing."""
    asked = f"GET {health.path}: " if health.path is not None else ""
    try:
        with trio.fail_after(health.timeout_s):
            stream = await _connect(address)
            async with stream:
                if health.path is None:
                    return ProbeResult(True, "connected")
                return await _ask(stream, address, health)
    except trio.TooSlowError:
        return ProbeResult(False, f"{asked}no answer within {health.timeout_s:g}s")
    except trio.BrokenResourceError as exc:
        return ProbeResult(False, asked + _reason(exc.__cause__))
    except _CannotProbe as exc:
        return ProbeResult(None, f"cannot probe: {exc}")
    except (OSError, _ProbeFailed) as exc:
        return ProbeResult(False, asked + _reason(exc))


class _CannotProbe(Exception):
    pass


class _ProbeFailed(Exception):
    pass


async def _connect(address: Address) -> trio.SocketStream:
    if address.path is not None:
        return await _connect_to(socket.AF_UNIX, address.path)
    found = await trio.socket.getaddrinfo(address.host or "127.0.0.1", address.port, type=socket.SOCK_STREAM)
    error: Exception = _ProbeFailed("no such host")
    for family, _, _, _, where in found:
        try:
            return await _connect_to(family, where)
        except (OSError, _ProbeFailed) as exc:
            error = exc
    raise error


async def _connect_to(family: int, where: object) -> trio.SocketStream:
    try:
        connection = trio.socket.socket(family, socket.SOCK_STREAM)
    except OSError as exc:  # no descriptors left here
        raise _CannotProbe(_reason(exc)) from None
    try:
        await connection.connect(where)
        # A connect to a dead port of the ephemeral range can connect to itself (simultaneous open).
        if family != socket.AF_UNIX and connection.getsockname() == connection.getpeername():
            raise _ProbeFailed("connection refused (it connected to itself)")
    except BaseException:
        connection.close()
        raise
    return trio.SocketStream(connection)


async def _ask(stream: trio.SocketStream, address: Address, health: HealthSettings) -> ProbeResult:
    host = health.host or ("localhost" if address.path is not None else str(address))
    fields = {"User-Agent": "lbproxy-probe", "Accept": "*/*"}
    ours = {name.lower(): name for name in fields}
    for name, value in health.headers:
        fields.pop(ours.get(name.lower(), ""), None)
        fields[name] = value
    lines = [f"GET {health.path} HTTP/1.1", f"Host: {host}", *(f"{name}: {value}" for name, value in fields.items())]
    await stream.send_all("\r\n".join([*lines, "Connection: close", "", ""]).encode())
    asked = f"GET {health.path}"
    try:
        head, rest = await _receive_head(stream)
        shown = (await _receive_body(stream, response_body(head, b"GET"), rest))[:SHOWN_BYTES]
    except Refused as exc:  # lbproxy could not forward this response either
        return ProbeResult(False, f"{asked} answered what cannot be forwarded: {exc.reason}")
    passed = any(low <= head.status <= high for low, high in health.expect)
    text = shown.decode("utf-8", "backslashreplace")
    return ProbeResult(passed, f"{asked} answered {head.status}" + (f": {text!r}" if text and not passed else ""))


async def _receive_head(stream: trio.SocketStream) -> tuple[ResponseHead, bytes]:
    """The head of the final response, and the bytes received behind it."""
    lines, raw, looked, interim = Lines(), b"", 0, 0
    while True:
        end = response_head_end(raw, looked) if raw else -1
        if end < 0:
            looked = len(raw)
            data = await stream.receive_some(16384)
            if not data:
                raise _ProbeFailed("the answer broke off" if raw or interim else "closed without an answer")
            raw += data
            continue
        head = read_response(raw[:end], lines)
        raw, looked = raw[end:], 0
        if head.status >= 200 or head.status == 101:
            return head, raw
        interim += 1
        if interim > INTERIM:
            raise _ProbeFailed("interim responses without end")


async def _receive_body(stream: trio.SocketStream, body: Body, data: bytes) -> bytes:
    """The part of the body that arrives within BODY_S. The probe does not wait for its end."""
    payload = body.feed(data)
    with trio.move_on_after(BODY_S), contextlib.suppress(trio.BrokenResourceError):
        while not body.done and len(payload) < PROBE_BODY_BYTES and (data := await stream.receive_some(16384)):
            payload += body.feed(data)
    return payload


def _reason(exc: BaseException | None) -> str:
    if isinstance(exc, OSError) and exc.errno is not None:
        if isinstance(exc, socket.gaierror):
            return str(exc.strerror)
        if isinstance(exc, FileNotFoundError):
            return "its socket is not there yet"
        return os.strerror(exc.errno).lower()
    return str(exc) if exc is not None else "connection lost"
