"""One HTTP exchange as a strict client sees it, and its outcome.

Knows Trio streams and enough HTTP/1.1 to tell a whole answer from a broken one. Knows nothing of lbproxy.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import trio


class Outcome(StrEnum):
    OK = "ok"
    REFUSED = "refused"  # no connection
    RESET = "reset"  # the connection ended before a byte of the answer
    TRUNCATED = "truncated"  # ... in the middle of it
    SERVER_ERROR = "5xx"
    LATE = "late"  # whole and right, but later than it should be, or never
    WRONG = "wrong"  # another status, or not the bytes that were due


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request, and a check of its answer."""

    request: Sequence[bytes]  # pieces; a short pause before each but the first
    right: Callable[[bytes], bool]  # whether a body is the expected one
    lasts_s: float = 0.0  # time that the backend itself takes
    pause_s: float = 0.0
    rest: Callable[[bytes], "Exchange | None"] = lambda body: (
        None
    )  # the next exchange after a stream that ended early in good order


class Truncated(Exception):
    """The connection ended in the middle of the answer."""


class Reset(Exception):
    """The connection ended before a byte of the answer."""


class Client:
    """One connection. After anything but a whole answer it must not be used again."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.is_last = False  # the other side has said that it closes the connection behind its answer
        self._inbox = b""

    async def exchange(self, exchange: Exchange, on_sent: Callable[[], None]) -> tuple[int, bytes]:
        """Status and body. Raises Reset or Truncated. `on_sent`: after each piece of the request."""
        async with trio.open_nursery() as sending:
            sending.start_soon(self._send, exchange, on_sent)
            status, headers = await self._head()
            self.is_last = headers.get(b"connection", b"").lower() == b"close"
            body = b"".join([part async for part in self._body(headers)])
            sending.cancel_scope.cancel()
        return status, body

    async def _send(self, exchange: Exchange, on_sent: Callable[[], None]) -> None:
        try:
            for number, piece in enumerate(exchange.request):
                if number:
                    await trio.sleep(exchange.pause_s)
                await self.stream.send_all(piece)
                on_sent()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # the reader reports the better reason

    async def _head(self) -> tuple[int, dict[bytes, bytes]]:
        while True:
            while b"\r\n\r\n" not in self._inbox:
                await self._receive(begun=bool(self._inbox))
            raw, _, self._inbox = self._inbox.partition(b"\r\n\r\n")
            lines = raw.split(b"\r\n")
            status = int(lines[0].split(b" ")[1])
            if status >= 200:
                pairs = (line.partition(b":") for line in lines[1:])
                return status, {name.lower(): value.strip() for name, _, value in pairs}

    async def _body(self, headers: dict[bytes, bytes]) -> AsyncIterator[bytes]:
        if headers.get(b"transfer-encoding") == b"chunked":
            while size := int(await self._line(), 16):
                yield await self._exactly(size)
                if await self._line() != b"":
                    raise Truncated("a chunk does not end where it says")
            while await self._line() != b"":
                pass
        else:
            yield await self._exactly(int(headers[b"content-length"]))

    async def _line(self) -> bytes:
        while b"\r\n" not in self._inbox:
            await self._receive(begun=True)
        line, _, self._inbox = self._inbox.partition(b"\r\n")
        return line

    async def _exactly(self, size: int) -> bytes:
        parts = [self._inbox[:size]]
        self._inbox = self._inbox[size:]
        left = size - len(parts[0])
        while left:
            await self._receive(begun=True)
            parts.append(self._inbox[:left])
            self._inbox = self._inbox[left:]
            left -= len(parts[-1])
        return b"".join(parts)

    async def _receive(self, *, begun: bool) -> None:
        try:
            data = await self.stream.receive_some(65536)
        except trio.BrokenResourceError as exc:
            data, why = b"", str(exc.__cause__)
        else:
            why = "end of file"
        if not data:
            raise Truncated(why) if begun else Reset(why)
        self._inbox += data


async def connect(port: int) -> Client | None:
    """A new connection; None if it is refused."""
    try:
        return Client(await trio.open_tcp_stream("127.0.0.1", port))
    except OSError:
        return None


@dataclass(frozen=True, slots=True)
class Verdict:
    outcome: Outcome
    detail: str = ""
    rest: Exchange | None = None


async def outcome_of(client: Client, exchange: Exchange, *, late_s: float) -> Verdict:
    """Run an exchange; returns its outcome and a detail for the reader.

    `late_s`: how late an answer may be, counted from the last piece of the request that went out: a client that is too
    busy to send in time is not lbproxy's fault.
    """
    limit_s = exchange.lasts_s + late_s
    with trio.move_on_after(limit_s) as limit:

        def on_sent() -> None:
            limit.deadline = trio.current_time() + limit_s

        try:
            status, body = await client.exchange(exchange, on_sent)
        except* Reset as group:
            verdict = Verdict(Outcome.RESET, str(group.exceptions[0]))
        except* Truncated as group:
            verdict = Verdict(Outcome.TRUNCATED, str(group.exceptions[0]))
        else:
            verdict = _judge(status, body, exchange)
        return verdict
    return Verdict(Outcome.LATE, f"no whole answer after {limit_s:.1f} s")


def _judge(status: int, body: bytes, exchange: Exchange) -> Verdict:
    if status >= 500:
        return Verdict(Outcome.SERVER_ERROR, f"{status} {body[:200]!r}")
    if status == 200 and exchange.right(body):
        return Verdict(Outcome.OK, "", exchange.rest(body))
    return Verdict(Outcome.WRONG, f"{status} {len(body)} bytes {body[:200]!r}")
