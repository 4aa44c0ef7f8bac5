"""One question to a backend, and what it answered, in words for the operator.

Knows an address and the pool's health settings. Counts nothing: policy/health.py does.
"""

import contextlib
import os
import re
import socket
from dataclasses import dataclass

import trio

from lbproxy.address import Address
from lbproxy.settings import HealthSettings

HEAD_BYTES = 64 * 1024
BODY_BYTES = 64 * 1024  # read so that the backend does not see a reset; nobody looks at more than:
SHOWN_BYTES = 200
BODY_S = 0.25
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9][0-9][0-9])(?: [^\r\n]*)?\r?\n")
_LENGTH = re.compile(rb"\ncontent-length:[ \t]*([0-9]{1,18})[ \t]*\r?\n", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Answer:
    passed: bool | None  # None: we could not even ask, which says nothing about the backend
    said: str


async def probe(address: Address, health: HealthSettings) -> Answer:
    """Raises nothing."""
    asked = f"GET {health.path}: " if health.path is not None else ""
    try:
        with trio.fail_after(health.timeout_s):
            stream = await _connect(address)
            async with stream:
                if health.path is None:
                    return Answer(True, "connected")
                return await _ask(stream, address, health)
    except trio.TooSlowError:
        return Answer(False, f"{asked}no answer within {health.timeout_s:g}s")
    except trio.BrokenResourceError as exc:
        return Answer(False, asked + _reason(exc.__cause__))
    except _NotAsked as exc:
        return Answer(None, f"cannot probe: {exc}")
    except (OSError, _Refused) as exc:
        return Answer(False, asked + _reason(exc))


class _NotAsked(Exception):
    pass


class _Refused(Exception):
    pass


async def _connect(address: Address) -> trio.SocketStream:
    if address.path is not None:
        return await _connect_to(socket.AF_UNIX, address.path)
    found = await trio.socket.getaddrinfo(address.host or "127.0.0.1", address.port, type=socket.SOCK_STREAM)
    error: Exception = _Refused("no such host")
    for family, _, _, _, where in found:
        try:
            return await _connect_to(family, where)
        except (OSError, _Refused) as exc:
            error = exc
    raise error


async def _connect_to(family: int, where: object) -> trio.SocketStream:
    try:
        connection = trio.socket.socket(family, socket.SOCK_STREAM)
    except OSError as exc:  # no descriptors left here
        raise _NotAsked(_reason(exc)) from None
    try:
        await connection.connect(where)
        # A connect to a dead port of the ephemeral range can meet itself (simultaneous open).
        if family != socket.AF_UNIX and connection.getsockname() == connection.getpeername():
            raise _Refused("connection refused (it connected to itself)")
    except BaseException:
        connection.close()
        raise
    return trio.SocketStream(connection)


async def _ask(stream: trio.SocketStream, address: Address, health: HealthSettings) -> Answer:
    host = "localhost" if address.path is not None else str(address)
    await stream.send_all(
        f"GET {health.path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: lbproxy-probe\r\nAccept: */*\r\n"
        "Connection: close\r\n\r\n".encode()
    )
    asked = f"GET {health.path}"
    raw = b""
    while True:
        data = await stream.receive_some(16384)
        if not data:
            return Answer(False, f"{asked}: " + ("the answer broke off" if raw else "closed without an answer"))
        raw += data
        try:
            head = read_status(raw)
        except ValueError as exc:
            return Answer(False, f"{asked}: {exc}")
        if head is not None:
            break
    status, length, begin = head
    passed = any(low <= status <= high for low, high in health.expect)
    body = await _read_body(stream, raw[begin:], length)
    shown = body[:SHOWN_BYTES].decode("utf-8", "backslashreplace")
    return Answer(passed, f"{asked} answered {status}" + (f": {shown!r}" if shown and not passed else ""))


async def _read_body(stream: trio.SocketStream, body: bytes, length: int | None) -> bytes:
    """As much as comes soon. Whether it ends is not the question."""
    limit = BODY_BYTES if length is None else min(length, BODY_BYTES)
    with trio.move_on_after(BODY_S), contextlib.suppress(trio.BrokenResourceError):
        while len(body) < limit and (data := await stream.receive_some(16384)):
            body += data
    return body


def read_status(raw: bytes) -> tuple[int, int | None, int] | None:
    """Status, length and begin of the body of the final response in `raw`; None: not all of its head is there yet.

    A status line is all that a probe needs, so this does not bring a whole parser. ValueError: this is no HTTP.
    """
    start = 0
    while True:
        begins = raw[start : start + 5]
        if not b"HTTP/".startswith(begins[:5]) and begins != b"HTTP/":
            raise ValueError(f"answered no HTTP: {raw[start : start + 40].decode('utf-8', 'backslashreplace')!r}")
        end = re.compile(rb"\r?\n\r?\n").search(raw, start)
        if end is None:
            if len(raw) - start > HEAD_BYTES:
                raise ValueError(f"its head is longer than {HEAD_BYTES} bytes")
            return None
        line = _STATUS_LINE.match(raw, start)
        if line is None:
            raise ValueError(f"answered no HTTP/1: {raw[start : start + 40].decode('utf-8', 'backslashreplace')!r}")
        status = int(line[1])
        if status >= 200 or status == 101:
            length = _LENGTH.search(raw, start, end.end())
            return status, int(length[1]) if length else None, end.end()
        if end.end() > HEAD_BYTES:
            raise ValueError("interim responses without end")
        start = end.end()


def _reason(exc: BaseException | None) -> str:
    if isinstance(exc, OSError) and exc.errno is not None:
        if isinstance(exc, socket.gaierror):
            return str(exc.strerror)
        if isinstance(exc, FileNotFoundError):
            return "its socket is not there yet"
        return os.strerror(exc.errno).lower()
    return str(exc) if exc is not None else "connection lost"
