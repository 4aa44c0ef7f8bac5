"""Other readers of HTTP: Node's llhttp in a process of its own, and h11.

with NodeReader() as node:
    reading = node.requests(b"GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")
    assert reading.messages[0].url == b"/"
"""

import json
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import h11

_SCRIPT = Path(__file__).with_name("second_reader.js")
_MAX_HEAD_BYTES = 1 << 18

Fields = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Read:
    """One message as another reader understood it; `start` is (method, target) or (status, reason)."""

    start: tuple[bytes, bytes]
    fields: Fields
    body: bytes
    trailers: Fields
    complete: bool
    upgrade: bytes | None = None  # what came behind the head; None: no upgrade


@dataclass(frozen=True, slots=True)
class Reading:
    messages: list[Read]
    error: str | None


class NodeReader:
    def __enter__(self) -> Self:
        command = ["node", f"--max-http-header-size={_MAX_HEAD_BYTES}", str(_SCRIPT)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.communicate()

    def requests(self, raw: bytes) -> Reading:
        """Everything read on one connection up to its end."""
        return self._ask(b"Q", raw)

    def answer(self, raw: bytes, method: bytes) -> Reading:
        return self._ask(b"H" if method == b"HEAD" else b"A", raw)

    def _ask(self, kind: bytes, raw: bytes) -> Reading:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(struct.pack("!I", len(raw) + 1) + kind + raw)
        self._process.stdin.flush()
        told = json.loads(self._process.stdout.readline())
        return Reading([_read(message) for message in told["messages"]], told["error"])


def _read(told: dict[str, Any]) -> Read:
    start = (told["method"], told["url"]) if "method" in told else (str(told["status"]), told["reason"])
    upgrade = told.get("upgrade")
    return Read(
        (_bytes(start[0]), _bytes(start[1])),
        _pairs(told["headers"]),
        _bytes(told.get("body", "")),
        _pairs(told.get("trailers", [])),
        told["complete"],
        None if upgrade is None else _bytes(upgrade),
    )


def _bytes(text: str) -> bytes:
    return text.encode("latin-1")


def _pairs(flat: list[str]) -> Fields:
    return [(_bytes(name).lower(), _bytes(value)) for name, value in zip(flat[::2], flat[1::2], strict=True)]


def h11_request(raw: bytes) -> tuple[Read, bytes]:
    """The first request of `raw` as h11 reads it, and the bytes after it. Raises h11.RemoteProtocolError."""
    return _h11(h11.Connection(h11.SERVER, _MAX_HEAD_BYTES), raw)


def h11_answer(raw: bytes, method: bytes, *, upgrade: bool = False) -> tuple[Read, bytes]:
    """The first final answer. Raises h11.RemoteProtocolError."""
    peer = h11.Connection(h11.CLIENT, _MAX_HEAD_BYTES)
    fields = [(b"Host", b"a"), *([(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")] if upgrade else [])]
    peer.send(h11.Request(method=method, target=b"/", headers=fields))
    peer.send(h11.EndOfMessage())
    return _h11(peer, raw)


def _h11(peer: h11.Connection, raw: bytes) -> tuple[Read, bytes]:
    peer.receive_data(raw)
    peer.receive_data(b"")
    start, fields, body, trailers = (b"", b""), [], b"", []
    complete = False
    while not complete:
        event = peer.next_event()
        if isinstance(event, h11.Request):
            start, fields = (event.method, event.target), list(event.headers)
        elif isinstance(event, h11.Response | h11.InformationalResponse):
            start, fields = (b"%d" % event.status_code, bytes(event.reason)), list(event.headers)
            if event.status_code == 101:
                return Read(start, fields, b"", [], True, peer.trailing_data[0]), b""
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            complete, trailers = True, list(event.headers)
        else:
            break
    return Read(start, fields, body, trailers, complete), peer.trailing_data[0]
