"""HTTP/1.1 on the control socket: connections, limits and answers. api.py makes the content of the answers.

A connection carries one request and one answer. Everything is bounded: connections, head, body, time. When there is no
room, the one who has been silent longest goes: `status` and `stop` must get through. Whoever is not root or our own
user is refused, although the socket's mode keeps them out already.
"""

import json
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import trio

from lbproxy.control.control_socket import peer
from lbproxy.telemetry.events import Event, Notice
from lbproxy.telemetry.words import compact
from lbproxy.wire.body import chunk, last_chunk, request_body
from lbproxy.wire.head import head_end, read_request
from lbproxy.wire.lines import Lines, Refused

MAX_CONNECTIONS = 64
MAX_HEAD_BYTES = 64 * 1024
MAX_FIELDS = 100
MAX_BODY_BYTES = 64 * 1024
REQUEST_TIMEOUT_S = 10.0
SEND_TIMEOUT_S = 10.0
_RECEIVE_BYTES = 65536

# The client has disconnected, or does not read.
_GONE = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError)


@dataclass(frozen=True, slots=True)
class Question:
    method: str
    path: str
    query: Mapping[str, str]
    values: Mapping[str, Any]  # the JSON object in the body; empty without one
    asked_by: Mapping[str, int | str] = field(default_factory=dict)  # uid and pid of the program that asks, and how


@dataclass(frozen=True, slots=True)
class Answer:
    """`lines`: the answer is a stream of JSON lines, and `values` is not used.

    `on_end` is called when the answer has been sent, or cannot be sent.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    status: int = 200
    lines: AsyncGenerator[Mapping[str, Any], None] | None = None
    on_end: Callable[[], None] | None = None


class Declined(Exception):
    """The request is refused: the answer is an error."""

    def __init__(self, status: int, error: str, exit_code: int = 1) -> None:
        super().__init__(error)
        self.answer = Answer({"error": error, "exit_code": exit_code}, status)


class ApiServer:
    def __init__(
        self,
        sock: trio.socket.SocketType,
        answer: Callable[[Question], Awaitable[Answer]],
        emit: Callable[[Event], None],
        *,
        for_group: bool = False,
    ) -> None:
        """`for_group`: whom the socket's mode lets in may control."""
        self._sock = sock
        self._for_group = for_group
        self._answer = answer
        self._emit = emit
        self._room = trio.CapacityLimiter(MAX_CONNECTIONS)
        self._silent: dict[object, trio.CancelScope] = {}  # connections without a request yet, the oldest first

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                await trio.lowlevel.wait_readable(self._sock.fileno())
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
        stream = trio.SocketStream(connection)
        try:
            pid, uid = peer(connection)
            if uid not in (0, os.geteuid()) and not self._for_group:
                raise Declined(403, f"user {uid} may not control this lbproxy")
            with trio.fail_after(REQUEST_TIMEOUT_S), trio.CancelScope() as scope:
                self._silent[token] = scope
                try:
                    question = await read_question(stream)
                finally:
                    del self._silent[token]
            if scope.cancelled_caught or question is None:
                return
            answer = await self._ask(replace(question, asked_by={"uid": uid, "pid": pid, "how": "command"}))
        except Declined as exc:
            answer = exc.answer
        except Refused as exc:
            answer = Answer({"error": exc.reason, "exit_code": 1}, exc.status)
        except trio.TooSlowError:
            answer = Answer({"error": "the request took too long", "exit_code": 1}, 408)
        try:
            await send_answer(stream, answer)
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


async def read_question(stream: trio.abc.ReceiveStream) -> Question | None:
    """One request; None if the client sends nothing. Raises Refused and Declined."""
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
    body = request_body(head, MAX_BODY_BYTES)
    payload = body.feed(buffer[end:])
    while not body.done:
        data = await stream.receive_some(_RECEIVE_BYTES)
        if not data:
            raise Declined(400, "the request was cut short")
        payload += body.feed(bytes(data))
    return question_of(head.method, head.target, payload)


def question_of(method: bytes, target: bytes, payload: bytes) -> Question:
    try:
        parts = urlsplit(target.decode("ascii"))
        values = json.loads(payload) if payload.strip() else {}
    except (ValueError, RecursionError):
        raise Declined(400, "the body is not JSON, or the target not a path") from None
    if not isinstance(values, dict):
        raise Declined(400, "the body is not a JSON object")
    return Question(method.decode("ascii"), parts.path, dict(parse_qsl(parts.query, keep_blank_values=True)), values)


async def send_answer(stream: trio.abc.Stream, answer: Answer) -> None:
    head = f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}\r\n"
    head += "Connection: close\r\nCache-Control: no-store\r\n"
    if answer.lines is None:
        body = compact(answer.values).encode() + b"\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        await _send(stream, head.encode() + body)
        return
    head += "Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with trio.open_nursery() as nursery, aclosing(answer.lines) as lines:
        nursery.start_soon(_watch, stream, nursery.cancel_scope)
        await _send(stream, head.encode())
        async for line in lines:
            await _send(stream, chunk(compact(line).encode() + b"\n"))
        await _send(stream, last_chunk())
        nursery.cancel_scope.cancel()


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


async def _linger(stream: trio.SocketStream) -> None:
    """Read the rest before closing: unread bytes would reset the connection, and the client could lose the answer."""
    await stream.send_eof()
    with trio.move_on_after(1.0):
        for _ in range(16):
            if not await stream.receive_some(_RECEIVE_BYTES):
                return
