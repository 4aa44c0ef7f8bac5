"""HTTP/1.1 on the control socket and on [admin]: connections, limits and answers. api.py makes their content.

A connection carries one request and one answer. Everything is bounded: connections, head, body, time. When there is no
room, the one who has been silent longest goes: `status` and `stop` must get through. A Door says who may ask what.
"""

import json
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

import trio

from lbproxy.control.control_socket import peer
from lbproxy.telemetry.events import Event, Notice
from lbproxy.telemetry.words import compact
from lbproxy.wire.body import chunk, last_chunk, request_body
from lbproxy.wire.head import RequestHead, head_end, read_request
from lbproxy.wire.lines import Lines, Refused

MAX_CONNECTIONS = 64
MAX_HEAD_BYTES = 64 * 1024
MAX_FIELDS = 100
MAX_BODY_BYTES = 512 * 1024  # a page of 64 KiB, with up to six characters for each byte in JSON, and the rest
REQUEST_TIMEOUT_S = 10.0
SEND_TIMEOUT_S = 10.0
_RECEIVE_BYTES = 65536

# The client has disconnected, or does not read.
_GONE = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError)


Fields = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Question:
    method: str  # HEAD is asked as GET
    path: str
    query: Mapping[str, str]
    values: Mapping[str, Any]  # the JSON object in the body; empty without one
    fields: Mapping[str, str] = field(default_factory=dict)  # by lower-case name; several lines joined by commas
    host: str | None = ""  # None: HTTP/1.0 without one
    peer: str = ""  # as the door's `admit` names the client
    asked_by: Mapping[str, int | str] = field(default_factory=dict)  # uid and pid of the program that asks, and how
    client_fd: int = -1  # its connection, if another process of control could go on with the answer

    @property
    def accept(self) -> str:
        return self.fields.get("accept", "")


@dataclass(frozen=True, slots=True)
class Answer:
    """`lines`: the answer is a stream of JSON lines; `stream`: of bytes, with its media type; `text`: a body, and its
    content type. With one of them `values` is not used.

    `on_end` is called when the answer has been sent, or cannot be sent.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    status: int = 200
    lines: AsyncGenerator[Mapping[str, Any], None] | None = None
    on_end: Callable[[], None] | None = None
    stream: tuple[str, AsyncGenerator[bytes, None]] | None = None
    text: tuple[bytes, str] | None = None
    fields: Fields = ()  # further fields of the head


class Declined(Exception):
    """The request is refused: the answer is an error."""

    def __init__(self, status: int, error: str, exit_code: int = 1, fields: Fields = ()) -> None:
        super().__init__(error)
        self.answer = Answer({"error": error, "exit_code": exit_code}, status, fields=fields)


def admit_own_user(connection: trio.socket.SocketType) -> str:
    """Root and our own user may control this lbproxy. The mode of the socket keeps others out already."""
    _, uid = peer(connection)
    if uid not in (0, os.geteuid()):
        raise Declined(403, f"user {uid} may not control this lbproxy")
    return ""


def admit_anyone(connection: trio.socket.SocketType) -> str:
    """Whom the mode of the socket lets in (`proxy.control_group`)."""
    return ""


def by_peer(connection: trio.socket.SocketType, name: str) -> Mapping[str, int | str]:
    """The program at the other end of a unix socket."""
    pid, uid = peer(connection)
    return {"uid": uid, "pid": pid, "how": "command"}


def by_name(connection: trio.socket.SocketType, name: str) -> Mapping[str, int | str]:
    return {"how": f"admin {name}"}


@dataclass(frozen=True, slots=True)
class Door:
    """The rules of one listening socket. Its functions raise Declined."""

    admit: Callable[[trio.socket.SocketType], str] = admit_own_user  # names the client
    asked_by: Callable[[trio.socket.SocketType, str], Mapping[str, int | str]] = by_peer  # for history and audit
    check: Callable[[Question], None] = lambda question: None  # of the head, before a body is read
    fields: Fields = ()  # in the head of every answer
    secure: Callable[[trio.socket.SocketType], Awaitable[trio.abc.Stream]] | None = None  # a TLS handshake


class ApiServer:
    def __init__(
        self,
        sock: trio.socket.SocketType,
        answer: Callable[[Question], Awaitable[Answer]],
        emit: Callable[[Event], None],
        door: Door | None = None,
    ) -> None:
        self._sock = sock
        self._answer = answer
        self._emit = emit
        self._door = door or Door()
        self._room = trio.CapacityLimiter(MAX_CONNECTIONS)
        self._silent: dict[object, trio.CancelScope] = {}  # connections without a request yet, the oldest first
        self._may_accept = trio.Event()
        self._may_accept.set()

    @property
    def connections(self) -> int:
        """How many are open."""
        return self._room.borrowed_tokens

    def pause(self) -> None:
        """Accept nobody until `resume`: who connects waits in the queue of the socket, for whoever has it then."""
        self._may_accept = trio.Event()

    def resume(self) -> None:
        self._may_accept.set()

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                await trio.lowlevel.wait_readable(self._sock.fileno())
                if not self._may_accept.is_set():
                    await self._may_accept.wait()
                    continue
                if not self._room.available_tokens and self._silent:
                    next(iter(self._silent.values())).cancel()
                # A connection over the limit waits in the queue of the socket.
                await self._room.acquire_on_behalf_of(token := object())
                try:
                    connection, _ = await self._sock.accept()
                except OSError:  # no descriptors left, or the client has disconnected already
                    self._room.release_on_behalf_of(token)
                    await trio.sleep(0.1)
                    continue
                except BaseException:
                    self._room.release_on_behalf_of(token)
                    raise
                nursery.start_soon(self._serve, connection, token)

    async def go_on(self, connection: trio.socket.SocketType, lines: AsyncGenerator[Mapping[str, Any], None]) -> None:
        """The rest of an answer whose head and first lines another process of control has sent."""
        try:
            with connection:
                stream = trio.SocketStream(connection)
                await _send_chunks(stream, b"", _json_lines(lines))
                await _linger(stream)
        except* _GONE:
            pass

    async def _serve(self, connection: trio.socket.SocketType, token: object) -> None:
        try:
            with connection:
                await self._converse(connection, token)
        except* _GONE:
            pass
        except* Exception as group:  # a mistake of ours, which must not end control
            self._emit(Notice(f"the control API failed: {group.exceptions[0]!r}"))
        finally:
            self._room.release_on_behalf_of(token)

    async def _converse(self, connection: trio.socket.SocketType, token: object) -> None:
        stream: trio.abc.Stream = trio.SocketStream(connection)
        head_only = False
        try:
            name = self._door.admit(connection)
            with trio.fail_after(REQUEST_TIMEOUT_S), trio.CancelScope() as scope:
                self._silent[token] = scope
                try:
                    if self._door.secure is not None:
                        stream = await self._door.secure(connection)
                    question = await read_question(stream, self._door.check, name)
                finally:
                    del self._silent[token]
            if scope.cancelled_caught or question is None:
                return
            client_fd = connection.fileno() if self._door.asked_by is by_peer else -1
            question = replace(question, asked_by=self._door.asked_by(connection, name), client_fd=client_fd)
            head_only = question.method == "HEAD"
            answer = await self._ask(replace(question, method="GET") if head_only else question)
        except Declined as exc:
            answer = exc.answer
        except Refused as exc:
            answer = Answer({"error": exc.reason, "exit_code": 1}, exc.status)
        except trio.TooSlowError:
            answer = Answer({"error": "the request took too long", "exit_code": 1}, 408)
        try:
            await send_answer(stream, answer, self._door.fields, head_only=head_only)
            await _linger(stream)
        finally:
            if answer.on_end is not None:
                answer.on_end()

    async def _ask(self, question: Question) -> Answer:
        try:
            return await self._answer(question)
        except Declined:
            raise
        except Exception as exc:
            self._emit(Notice(f"the control API failed: {exc!r}"))
            raise Declined(500, f"lbproxy made a mistake: {exc!r}") from exc


async def read_question(
    stream: trio.abc.ReceiveStream, check: Callable[[Question], None] = lambda question: None, peer: str = ""
) -> Question | None:
    """One request; None if the client sends nothing. Raises Refused and Declined; `check` may raise them, too."""
    buffer = b""
    searched, end = 0, -1
    while end < 0:
        data = await stream.receive_some(_RECEIVE_BYTES)
        if not data:
            if buffer:
                raise Declined(400, "the request was cut short")
            return None
        buffer += bytes(data)
        end = head_end(buffer, searched, MAX_HEAD_BYTES)
        searched = max(0, len(buffer) - 3)
    head = read_request(buffer[:end], Lines(0, 0), MAX_FIELDS)
    question = question_of(head, peer)
    check(question)
    body = request_body(head, MAX_BODY_BYTES)
    payload = body.feed(buffer[end:])
    while not body.done:
        data = await stream.receive_some(_RECEIVE_BYTES)
        if not data:
            raise Declined(400, "the request was cut short")
        payload += body.feed(bytes(data))
    return replace(question, values=values_of(payload))


def question_of(head: RequestHead, peer: str = "") -> Question:
    """The question without its body."""
    path, query = path_and_query(head.target)
    fields = {name.decode("ascii"): b", ".join(values).decode("latin-1") for name, values in head.fields.items()}
    for line in head.lines:
        spelt, _, value = line.decode("latin-1").partition(":")
        name = spelt.lower()
        if name.encode() not in head.fields:
            fields[name] = f"{fields[name]}, {value.strip()}" if name in fields else value.strip()
    host = head.host.decode("latin-1") if head.host or head.minor else None
    return Question(head.method.decode("ascii"), path, query, {}, fields, host, peer)


def path_and_query(target: bytes) -> tuple[str, dict[str, str]]:
    """Not by urlsplit: for that `//a/livez` is the path /livez of another host."""
    try:
        path, _, query = target.decode("ascii").partition("?")
        return path, dict(parse_qsl(query, keep_blank_values=True))
    except ValueError:
        raise Declined(400, "the target is not a path") from None


def values_of(payload: bytes) -> dict[str, Any]:
    try:
        values = json.loads(payload) if payload.strip() else {}
    except (ValueError, RecursionError):
        raise Declined(400, "the body is not JSON") from None
    if not isinstance(values, dict):
        raise Declined(400, "the body is not a JSON object")
    return values


async def send_answer(stream: trio.abc.Stream, answer: Answer, fields: Fields = (), *, head_only: bool = False) -> None:
    head = f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}\r\n"
    head += "Connection: close\r\nCache-Control: no-store\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in (*fields, *answer.fields))
    streamed = ("application/x-ndjson", _json_lines(answer.lines)) if answer.lines is not None else answer.stream
    if streamed is None:
        body, media_type = answer.text or (compact(answer.values).encode() + b"\n", "application/json")
        head += f"Content-Type: {media_type}\r\nContent-Length: {len(body)}\r\n\r\n"
        await _send(stream, head.encode() + (b"" if head_only else body))
        return
    media_type, pieces = streamed
    head += f"Content-Type: {media_type}\r\nTransfer-Encoding: chunked\r\n\r\n"
    await _send_chunks(stream, head.encode(), pieces, head_only=head_only)


async def _send_chunks(
    stream: trio.abc.Stream, head: bytes, pieces: AsyncGenerator[bytes, None], *, head_only: bool = False
) -> None:
    async with trio.open_nursery() as nursery, aclosing(pieces):
        nursery.start_soon(_watch, stream, nursery.cancel_scope)
        await _send(stream, head)
        if not head_only:
            async for piece in pieces:
                await _send(stream, chunk(piece))
            await _send(stream, last_chunk())
        nursery.cancel_scope.cancel()


async def _json_lines(lines: AsyncGenerator[Mapping[str, Any], None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(lines):
        async for line in lines:
            yield compact(line).encode() + b"\n"


async def _watch(stream: trio.abc.ReceiveStream, answering: trio.CancelScope) -> None:
    """Notice the end of the client while there is nothing to send."""
    try:
        while await stream.receive_some(_RECEIVE_BYTES):
            pass
    except trio.BrokenResourceError:
        pass
    answering.cancel()


async def _send(stream: trio.abc.SendStream, data: bytes) -> None:
    with trio.fail_after(SEND_TIMEOUT_S):
        await stream.send_all(data)


async def _linger(stream: trio.abc.Stream) -> None:
    """Read the rest before closing: unread bytes would reset the connection, and the client could lose the answer."""
    with trio.move_on_after(1.0):
        if isinstance(stream, trio.SSLStream):
            await stream.unwrap()
            return
        if isinstance(stream, trio.SocketStream):
            await stream.send_eof()
        for _ in range(16):
            if not await stream.receive_some(_RECEIVE_BYTES):
                return
