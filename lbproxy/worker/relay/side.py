"""One side of a relay: bytes read at its socket go to the other side; bytes from there are sent, or wait.

Knows one socket, the reactor, and the relay that has both sides. Memory is bounded: while one side cannot be written,
the other is not read, so that at most one read (64 KiB) waits in each direction. While nothing waits there is no buffer
at all.

Bytes that keep coming faster than they are read move through a pipe in the kernel (splice.py), where at most one fill
waits: 100 MB cost 31 ms of CPU, through Python 75. After a small fill, or an empty one, the socket is read again.
"""

import contextlib
import errno
import socket
from collections.abc import Callable
from typing import Protocol

from lbproxy.worker.io.reactor import DATA, ERROR, HANGUP, LAST, NEVER, READ, WRITE, Reactor
from lbproxy.worker.io.read_size import SMALL_BYTES, SMALL_RECV_BYTES
from lbproxy.worker.io.splice import PIPE_BYTES, Pipe, are_plain
from lbproxy.worker.io.stream import RESET_ON_CLOSE

READ_BYTES = 16 * 1024  # fits most messages; after a small one, less is read at first: see read_size.py
BULK_BYTES = 64 * 1024  # as long as reads come back full
TURN_BYTES = 256 * 1024  # moved by one event before others get their turn
FULL_READS = 4  # in a row: then a pipe pays
SPLICES_A_TURN = 4
REFUSED = frozenset(
    (errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP)
)  # errors of a kernel or sandbox that does not splice

_WRITABLE = WRITE | ERROR | HANGUP
_READABLE = READ | ERROR | HANGUP


class Relay(Protocol):
    """What a side asks of the relay that has both."""

    reactor: Reactor
    stall_s: float
    joins_ends: bool

    @property
    def is_well(self) -> bool: ...
    def broke(self, side: "Side") -> None: ...
    def settle(self) -> None: ...
    def stalled(self) -> None: ...
    def take_pipe(self) -> Pipe | None: ...
    def drop_pipe(self, pipe: Pipe) -> None: ...
    def abort(self) -> None: ...


class Side:
    """One socket of a relay, as handler and timed item of the reactor. Bytes read here go to `deliver`."""

    __slots__ = (
        "_events",
        "_fd",
        "_full",
        "_may_splice",
        "_size",
        "broken",
        "deadline",
        "deliver",
        "ended",
        "is_shut",
        "other",
        "outbox",
        "pipe",
        "queued_at",
        "received",
        "relay",
        "sock",
    )

    other: "Side"
    deliver: Callable[[bytes], None]

    def __init__(self, relay: Relay, sock: socket.socket) -> None:
        self.relay = relay
        self.sock = sock
        self.received = 0  # bytes
        self.outbox: bytes | Pipe = b""  # bytes that the socket has not taken yet
        self.pipe: Pipe | None = None  # carries the bytes to this socket instead of `put`
        self.ended = False  # its last byte has been read
        self.broken = False  # it takes nothing any more: put() drops its bytes
        self.deadline = NEVER
        self.queued_at = NEVER
        self._fd = sock.fileno()
        self._size = READ_BYTES
        self._may_splice = True
        self._full = 0  # reads in a row that filled their size
        self._events = 0  # the events registered
        self.is_shut = False  # it was told that no more bytes follow

    @property
    def is_plain(self) -> bool:
        """Its bytes can move in the kernel, and another process can go on with its descriptor."""
        return are_plain(self.sock)

    def on_ready(self, mask: int) -> None:
        # Hot: a small message is one event, one recv, one send. Everything else is behind a branch.
        if mask == DATA and self._events == READ and self.other.pipe is None:
            size = self._size
            try:
                data = self.sock.recv(size)
            except BlockingIOError:
                return
            except OSError:
                self._fail()
                return
            if 0 < len(data) <= SMALL_BYTES:
                if size != SMALL_RECV_BYTES:
                    self._size = SMALL_RECV_BYTES
                    self._full = 0
                self.received += len(data)
                self.deliver(data)
            elif self._take(data, size, 0) and not self.ended:
                self.pump()
            return
        if self.outbox and mask & _WRITABLE:
            self._flush()
        if self._events & READ and mask & _READABLE:
            self.pump(mask & LAST)

    def pump(self, is_last: int = 0) -> None:
        """Read and deliver until nothing is there, the other side takes no more, or the turn is over.

        `is_last`: the end has arrived, too.
        """
        other, sock = self.other, self.sock
        if other.pipe is not None:
            self._splice(other.pipe)
            return
        turn = TURN_BYTES
        while not (other.outbox or self.ended) and turn > 0:
            size = self._size
            try:
                data = sock.recv(size)
            except BlockingIOError:
                return
            except OSError:
                self._fail()
                return
            if not self._take(data, size, is_last):
                return
            turn -= len(data)

    def _fail(self) -> None:
        """Reading has failed, so this side has said its last byte."""
        self.ended = True
        self.relay.broke(self)

    def _take(self, data: bytes, size: int, is_last: int) -> bool:
        """Deliver what one read of `size` brought. False: reading again would find nothing, or is not allowed."""
        if not data:
            self.ended = True
            self.relay.settle()
            return False
        failed = False
        if size == SMALL_RECV_BYTES and len(data) == size:
            # More than a small message: the rest goes with it, in one packet. An end is left to the next read.
            size += READ_BYTES
            try:
                data += self.sock.recv(READ_BYTES)
            except BlockingIOError:
                pass
            except OSError:
                failed = True
        got = len(data)
        self.received += got
        if got < size:
            if got < READ_BYTES:
                self._size = SMALL_RECV_BYTES if got <= SMALL_BYTES else READ_BYTES
                self._full = 0
            elif size < BULK_BYTES:
                self._size = READ_BYTES
            if is_last and not failed and self.relay.joins_ends:
                self._pass_last(data)
                return False
            self.deliver(data)
            if failed and not self.ended:
                self._fail()
            return bool(is_last) and not failed  # what may have come meanwhile is another event
        other = self.other
        self.deliver(data)
        self._size = BULK_BYTES
        self._full += 1
        if self._full >= FULL_READS and not (other.outbox or other.broken):
            self._full = 0
            pipe = other.pipe = self.relay.take_pipe() if self._may_splice else None
            if pipe is not None:
                self._splice(pipe)
                return False
        return True

    def _pass_last(self, data: bytes) -> None:
        """Look for the end before `data` is sent, so that both leave in one packet: the receiver saves 5 us."""
        relay, more = self.relay, 0
        try:
            rest = self.sock.recv(READ_BYTES)
        except BlockingIOError:
            self.deliver(data)
            return
        except OSError:
            self.ended = True
            self.deliver(data)
            relay.broke(self)
            return
        if rest:  # it came meanwhile; any further bytes are another event
            self.received += len(rest)
            self.deliver(data + rest)
            return
        self.ended = True
        if relay.is_well:
            more = socket.MSG_MORE  # the end is passed on now
        self.other.put(data, more)
        relay.settle()

    # Through a pipe

    def _splice(self, pipe: Pipe) -> None:
        """Move bytes through the kernel. After a small or an empty fill, `pump` takes over again."""
        other = self.other
        for turn in range(SPLICES_A_TURN):
            if other.pipe is not pipe or other.outbox or self.ended:
                return
            try:
                count = pipe.fill(self._fd, PIPE_BYTES)
            except BlockingIOError:
                if not turn:
                    other.drop_pipe()  # also where an urgent byte is in the way
                return
            except OSError as exc:
                if exc.errno in REFUSED:
                    self._refuse_pipe()
                else:
                    self.ended = True
                    self.relay.broke(self)
                return
            if not count:
                other.drop_pipe()
                self.ended = True
                self.relay.settle()
                return
            self.received += count
            other.drain(pipe)
            if count < BULK_BYTES:
                if count < READ_BYTES and not pipe:
                    other.drop_pipe()
                return

    def drain(self, pipe: Pipe) -> None:
        """Send the bytes in the pipe to this socket."""
        try:
            while pipe:
                pipe.drain(self._fd)
            return
        except BlockingIOError:
            self.outbox = pipe
        except OSError as exc:
            if exc.errno not in REFUSED:
                self.relay.broke(self)
                return
            data = pipe.read()
            self.other._refuse_pipe()
            self.put(data)
            return
        self.relay.reactor.arm(self, self.relay.stall_s)
        self.relay.settle()

    def _refuse_pipe(self) -> None:
        """Stop splicing: this kernel does not do it with such a socket."""
        self._may_splice = False
        self.other.drop_pipe()

    def drop_pipe(self) -> None:
        if self.pipe is not None:
            self.relay.drop_pipe(self.pipe)
            self.pipe = None

    # Bytes from the other side

    def put(self, data: bytes, flags: int = 0) -> None:
        """Send `data` now; bytes that are not taken wait, and the other side is not read meanwhile."""
        if self.broken or not data:
            return
        if self.outbox:
            assert isinstance(self.outbox, bytes)  # a pipe replaces put()
            self.outbox += data
            return
        try:
            sent = self.sock.send(data, flags) if flags else self.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.relay.broke(self)
            return
        if sent < len(data):
            self.outbox = data[sent:]
            self.relay.reactor.arm(self, self.relay.stall_s)
            self.relay.settle()

    def _flush(self) -> None:
        relay, outbox = self.relay, self.outbox
        try:
            if isinstance(outbox, bytes):
                outbox = outbox[self.sock.send(outbox) :]
            else:
                outbox.drain(self._fd)
        except BlockingIOError:
            return
        except OSError:
            relay.broke(self)
            return
        self.outbox = outbox or b""
        if outbox:
            relay.reactor.arm(self, relay.stall_s)
            return
        # More bytes are likely to wait there. Reading them now saves changing both registrations, and back.
        self.other.pump()
        relay.settle()

    def abandon(self) -> None:
        """Drop everything for this socket: it takes nothing any more."""
        self.broken = True
        self.outbox = b""
        self.drop_pipe()

    def hang_up(self) -> None:
        """Half-close, unless bytes wait: no more bytes follow."""
        if not self.outbox and not self.is_shut:
            self.is_shut = True
            try:  # noqa: SIM105 (suppress costs as much as the shutdown)
                self.sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # reset meanwhile: the next read reports it

    def part(self) -> None:
        """Nothing more is said to the peer, and nothing is heard: it may know at once."""
        self.hang_up()

    def watch_first(self) -> None:
        """Register a side on which nothing has happened yet."""
        self._events = READ
        self.relay.reactor.register(self._fd, READ, self)

    def watch(self) -> None:
        """Register for the events that can be handled now. Without any the socket is unregistered: an empty
        mask would spin on a hang-up."""
        events = 0 if self.ended or self.other.outbox else READ
        if self.outbox:
            events |= WRITE
        before, self._events = self._events, events
        if events == before:
            return
        reactor, fd = self.relay.reactor, self._fd
        if not events:
            reactor.unregister(fd)
        elif before:
            reactor.modify(fd, events)
        else:
            reactor.register(fd, events, self)

    def leave(self) -> None:
        """Leave the reactor, with the bytes of a pipe in hand: no byte moves until `watch`."""
        if self.outbox and not isinstance(self.outbox, bytes):
            self.outbox = self.outbox.read()
        self.drop_pipe()
        if self._events:
            self._events = 0
            self.relay.reactor.unregister(self._fd)
        self.relay.reactor.disarm(self)

    def on_deadline(self) -> None:
        if self.outbox:
            self.relay.stalled()

    def close(self, *, reset: bool) -> None:
        reactor = self.relay.reactor
        self.ended = self.broken = True
        self.outbox = b""
        if self.pipe is not None:
            self.drop_pipe()
        if self._events:
            self._events = 0
            reactor.forget(self._fd)
        if self.queued_at != NEVER:
            reactor.disarm(self)
        if reset:
            with contextlib.suppress(OSError):  # reset already
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.sock.close()

    def abort(self) -> None:
        if hasattr(self, "relay"):  # not over yet
            self.relay.abort()
