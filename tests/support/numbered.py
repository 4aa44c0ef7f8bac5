"""Numbered traffic both ways over TCP sessions and WebSockets: a number that is missing, comes twice or out of order is
an error, and so is an end that nobody asked for.

Backends and clients are tasks of the test's own process, so that they may live as long as they like.
"""

import socket
from contextlib import suppress

import trio

from support.peer import Ended, Peer

SIZE = 8
TCP_BEGINS = b"tcp %08d"  # the pace of the session in ms
UPGRADE = (
    b"GET /%08d HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


class Ends:
    """One end of a session: what it has sent and heard."""

    def __init__(self, peer: Peer, head: bytes, heard_head: int, pace_s: float) -> None:
        self.peer = peer
        self.sent = 0
        self.bytes_sent = 0
        self.heard = 0
        self.longest_s = 0.0  # between two numbers
        self._head = head  # of each frame that is sent
        self._heard_head = heard_head  # bytes in front of each that is heard
        self.pace_s = pace_s

    async def say(self, stop: trio.Event) -> None:
        """Numbers in pieces that have nothing to do with their frames."""
        rest = b""
        while not stop.is_set():
            data = rest + self._head + b"%08d" % self.sent
            self.sent += 1
            cut = len(data) - self.sent % 3
            await self.peer.send(data[:cut])
            rest = data[cut:]
            with trio.move_on_after(self.pace_s):
                await stop.wait()
        await self.peer.send(rest + self._head + b"E%07d" % self.heard)
        self.bytes_sent = (self.sent + 1) * (len(self._head) + SIZE)
        self.peer.end()

    async def hear(self) -> int:
        """Returns how many numbers the other end has heard, when it says so."""
        last = trio.current_time()
        while True:
            data = (await self.peer.exactly(self._heard_head + SIZE))[self._heard_head :]
            now = trio.current_time()
            self.longest_s, last = max(self.longest_s, now - last), now
            if data.startswith(b"E"):
                return int(data[1:])
            if data != b"%08d" % self.heard:
                raise AssertionError(f"{data!r} came instead of {self.heard}")
            self.heard += 1


class Numbered:
    """All sessions of a run. `port`: of the backend."""

    def __init__(self, pace_s: float) -> None:
        self.pace_s = pace_s
        self.errors: list[str] = []
        self.clients: list[Ends] = []
        self.stop = trio.Event()
        self._listening = trio.socket.from_stdlib_socket(socket.create_server(("127.0.0.1", 0), backlog=4096))
        self.port: int = self._listening.getsockname()[1]

    async def run(self) -> None:
        """The backend, until it is cancelled."""
        with self._listening:
            async with trio.open_nursery() as nursery:
                while True:
                    sock, _ = await self._listening.accept()
                    nursery.start_soon(self._serve, Peer(sock))

    async def _serve(self, peer: Peer) -> None:
        with suppress(Ended):  # the client tells of it
            if await peer.exactly(4) == b"GET ":
                pace_s = int((await peer.exactly(1 + SIZE))[1:]) / 1000
                await peer.until(b"\r\n\r\n")
                await peer.send(SWITCH)
                end = Ends(peer, b"\x82\x08", 6, pace_s)
            else:
                end = Ends(peer, b"", 0, int(await peer.exactly(SIZE)) / 1000)
            asked = trio.Event()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._say, end, asked)
                with suppress(Ended):
                    await end.hear()
                asked.set()
        peer.close()

    async def _say(self, end: Ends, stop: trio.Event) -> None:
        with suppress(Ended):
            await end.say(stop)

    async def client(self, port: int, *, websocket: bool, pace_s: float | None = None) -> None:
        """One session, until `stop`."""
        sock = trio.socket.socket()
        await sock.connect(("127.0.0.1", port))
        peer = Peer(sock)
        pace_s = pace_s or self.pace_s
        try:
            if websocket:
                await peer.send(UPGRADE % round(pace_s * 1000))
                await peer.until(b"\r\n\r\n")
            else:
                await peer.send(TCP_BEGINS % round(pace_s * 1000))
            end = Ends(peer, b"\x82\x88\0\0\0\0" if websocket else b"", 2 if websocket else 0, pace_s)
            self.clients.append(end)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._say, end, self.stop)
                try:
                    heard_there = await end.hear()
                except (Ended, AssertionError) as exc:
                    self.errors.append(f"{'websocket' if websocket else 'tcp'}: {exc}")
                    nursery.cancel_scope.cancel()
                    return
            if heard_there != end.sent:
                self.errors.append(f"{end.sent} numbers were sent, {heard_there} came")
        except (Ended, OSError) as exc:
            self.errors.append(f"no {'websocket' if websocket else 'tcp'} session: {exc}")
        finally:
            peer.close()

    async def wait_more(self, count: int = 3) -> None:
        """Until each client has heard so many further numbers, or one has failed."""
        wanted = [end.heard + count for end in self.clients]
        while not self.errors and any(  # noqa: ASYNC110
            end.heard < number for end, number in zip(self.clients, wanted, strict=True)
        ):
            await trio.sleep(0.01)
