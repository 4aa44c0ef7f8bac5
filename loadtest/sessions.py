"""Connections that stay, as strict clients see them: WebSockets that receive or send, and TCP sessions.

Each is played once, from the connection to its end, and gives a verdict. Knows nothing of lbproxy but its promise:
whole frames, nothing of the backend's words lost, and at the end exactly one Close and nothing behind it.
"""

import base64
import os
import random
import zlib
from dataclasses import dataclass

import trio

from classify import Outcome, Reset, Truncated, Verdict
from frames import BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, TEXT, Frame, accept_of, frame, pushed, whole_frames

NORMAL, GOING_AWAY = 1000, 1001
READ_EVERY_S = 0.02  # several messages at a time, or the clients would take the processor that lbproxy needs
RECEIVE_BYTES = 1 << 18


class Wrong(Exception):
    """The bytes received are not the expected ones."""


@dataclass(slots=True)
class End:
    """The good ends of a WebSocket."""

    code: int
    messages: int


class WebSocket:
    """The client's side of one connection."""

    def __init__(self, stream: trio.SocketStream, late_s: float) -> None:
        self.stream = stream
        self.late_s = late_s  # how long the other side may be silent when something is due
        self.messages = 0
        self.last: bytes | None = None  # what the origin says when it is told to close: how much it had said
        self.code: int | None = None
        self.expected: bytes | None = None  # the next echo
        self._inbox = b""
        self._mask = os.urandom(4)

    async def open(self, target: str) -> Verdict | None:
        """The handshake; None if the connection is open. Raises Reset, Truncated, Wrong and trio.TooSlowError, as all
        methods here do."""
        key = base64.b64encode(os.urandom(16))
        fields = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
        await self._send(f"GET {target} HTTP/1.1\r\nHost: storm\r\n".encode() + fields + key + b"\r\n\r\n")
        while b"\r\n\r\n" not in self._inbox:
            if not await self._more():
                raise Truncated("in the handshake") if self._inbox else Reset("in the handshake")
        head, _, self._inbox = self._inbox.partition(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        if status >= 500:
            return Verdict(Outcome.SERVER_ERROR, f"handshake: {status}")
        if status != 101 or accept_of(key) not in head:
            raise Wrong(f"handshake: {head!r}")
        return None

    async def say(self, payload: bytes) -> None:
        """A message, sometimes in fragments with a ping between them."""
        mask = self._mask
        self.expected = payload
        if random.random() < 0.7:
            await self._send(frame(FIN | BINARY, payload, mask))
            return
        half = len(payload) // 2
        await self._send(frame(BINARY, payload[:half], mask) + frame(FIN | PING, b"?", mask))
        await self._send(frame(CONTINUATION, b"", mask) + frame(FIN | CONTINUATION, payload[half:], mask))

    async def hear(self) -> None:
        """Read the next frames and check each."""
        frames, self._inbox = whole_frames(self._inbox)
        if not frames:
            if not await self._more():
                raise Truncated("in a frame") if self._inbox else Reset("without a Close")
            frames, self._inbox = whole_frames(self._inbox)
        for one in frames:
            self._look_at(one)

    def _look_at(self, one: Frame) -> None:
        first, payload = one
        if self.code is not None:
            raise Wrong(f"a frame behind the Close: {first:#x} {payload[:40]!r}")
        if first == FIN | CLOSE:
            self.code = int.from_bytes(payload[:2], "big") if payload else 1005
        elif self.last is not None:
            raise Wrong(f"a message behind the last words: {payload[:40]!r}")
        elif first == FIN | TEXT and payload.startswith(b"last "):
            self.last = payload
        elif first in (FIN | TEXT, FIN | BINARY):
            self.messages += 1
            if payload != (pushed(self.messages) if first == FIN | TEXT else self.expected):
                raise Wrong(f"message {self.messages} is {len(payload)} bytes {payload[:40]!r}")
            self.expected = None
        elif first != FIN | PONG:
            raise Wrong(f"a frame that begins with {first:#x}")

    async def close(self, code: int) -> None:
        await self._send(frame(FIN | CLOSE, code.to_bytes(2, "big"), self._mask))

    async def end(self, *, asked: bool) -> End:
        """The Close has come: answer it, unless we had `asked` for it, and see that nothing follows."""
        assert self.code is not None
        if not asked:
            await self.close(self.code)
        while await self._more():
            pass
        if self._inbox:
            raise Wrong(f"behind the Close: {self._inbox[:40]!r}")
        if self.last is None:
            raise Truncated("before the origin's last words")
        if self.last != b"last %d" % self.messages:
            raise Wrong(f"{self.messages} messages came, and the origin's last words are {self.last!r}")
        return End(self.code, self.messages)

    async def _send(self, data: bytes) -> None:
        try:
            await self.stream.send_all(data)
        except trio.BrokenResourceError:
            return  # the reader reports the better reason

    async def _more(self) -> bool:
        try:
            with trio.fail_after(self.late_s):
                data = await self.stream.receive_some(RECEIVE_BYTES)
        except trio.BrokenResourceError:
            data = b""
        self._inbox += data
        return bool(data)


async def listening(socket: WebSocket, stop: trio.Event) -> End:
    """A client that receives pushed messages until either side closes; it closes itself when `stop` is set."""
    asked = False
    while socket.code is None:
        if stop.is_set() and not asked:
            asked = True
            await socket.close(NORMAL)
        await socket.hear()
        await trio.sleep(READ_EVERY_S)
    return await socket.end(asked=asked)


async def talking(socket: WebSocket, stop: trio.Event) -> End:
    """A client that sends messages and receives their echoes."""
    asked = False
    while socket.code is None:
        if stop.is_set() and not asked and socket.expected is None:
            asked = True
            await socket.close(NORMAL)
        if socket.expected is None and not asked:
            await socket.say(random.randbytes(random.choice((1, 100, 1000, 20_000))))
        await socket.hear()
        if socket.expected is None and socket.code is None and not asked:
            await _pause(socket)
    return await socket.end(asked=asked)


async def _pause(socket: WebSocket) -> None:
    """Wait a little, and notice a Close that comes meanwhile."""
    with trio.move_on_after(random.uniform(0, 0.3)):
        while socket.code is None:
            await socket.hear()


async def websocket(port: int, *, push_every_s: float, stop: trio.Event, late_s: float) -> tuple[Verdict, End | None]:
    """One WebSocket from its handshake to its end. `push_every_s`: 0 for an echo."""
    try:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
    except OSError:
        return Verdict(Outcome.REFUSED), None
    async with stream:
        socket = WebSocket(stream, late_s)
        try:
            refused = await socket.open(f"/ws?push={push_every_s:g}" if push_every_s else "/ws")
            if refused is not None:
                return refused, None
            end = await (listening if push_every_s else talking)(socket, stop)
        except trio.TooSlowError:
            return Verdict(Outcome.LATE, f"nothing for {late_s:g} s, after {socket.messages} messages"), None
        except Reset as exc:
            return Verdict(Outcome.RESET, f"{exc}, after {socket.messages} messages"), None
        except Truncated as exc:
            return Verdict(Outcome.TRUNCATED, f"{exc}, after {socket.messages} messages"), None
        except Wrong as exc:
            return Verdict(Outcome.WRONG, str(exc)), None
    if end.code != GOING_AWAY and not (end.code == NORMAL and stop.is_set()):
        return Verdict(Outcome.WRONG, f"closed with {end.code}"), None
    return Verdict(Outcome.OK), end


async def tcp_session(port: int, *, lasts_s: float, late_s: float) -> Verdict:
    """Random bytes out and back for `lasts_s`, then our side ends, and theirs has to once everything is back."""
    try:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
    except OSError:
        return Verdict(Outcome.REFUSED)
    sent = got = crc_sent = crc_got = 0
    begun = False

    async def talk() -> None:
        nonlocal sent, crc_sent
        until = trio.current_time() + lasts_s
        try:
            await stream.send_all(b"GET /raw HTTP/1.1\r\nHost: storm\r\n\r\n")
            while trio.current_time() < until:
                data = random.randbytes(random.choice((10, 1000, 20_000)))
                sent, crc_sent = sent + len(data), zlib.crc32(data, crc_sent)
                await stream.send_all(data)
                await trio.sleep(random.uniform(0, 0.1))
            await stream.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return

    async with stream:
        with trio.move_on_after(lasts_s + late_s):
            async with trio.open_nursery() as talking:
                talking.start_soon(talk)
                inbox = b""
                try:
                    while data := await stream.receive_some(RECEIVE_BYTES):
                        inbox += data
                        if not begun:
                            _, found, inbox = (
                                inbox.partition(b"\r\n\r\n") if b"\r\n\r\n" in inbox else (b"", b"", inbox)
                            )
                            begun = bool(found)
                        if begun:
                            got, crc_got, inbox = got + len(inbox), zlib.crc32(inbox, crc_got), b""
                except trio.BrokenResourceError:
                    pass
                talking.cancel_scope.cancel()
            if not begun:
                return Verdict(Outcome.RESET, "before a byte")
            if (got, crc_got) == (sent, crc_sent):
                return Verdict(Outcome.OK)
            return Verdict(Outcome.TRUNCATED if got < sent else Outcome.WRONG, f"{got} of {sent} bytes came back")
    return Verdict(Outcome.LATE, f"not over after {lasts_s + late_s:.1f} s; {got} of {sent} bytes came back")
