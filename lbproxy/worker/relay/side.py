"""One side of a relay: what is read at its socket goes to the other side; what comes from there is sent, or waits.

Knows one socket, the reactor, and the relay that has both sides. Memory is bounded: while one side cannot be written,
the other is not read, so that at most one read (64 KiB) waits in each direction. While nothing waits there is no buffer
at all.

What keeps coming faster than it is read moves through a pipe in the kernel (splice.py), where at most one fill waits:
100 MB cost 31 ms of CPU, through Python 75. Little at a time, or nothing for a moment, and it is read again.
"""

import contextlib
import errno
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from lbproxy.worker.io.reactor import DATA, ERROR, HANGUP, LAST, NEVER, READ, WRITE
from lbproxy.worker.io.read_size import SMALL_BYTES, SMALL_RECV_BYTES
from lbproxy.worker.io.splice import PIPE_BYTES, Pipe
from lbproxy.worker.io.stream import RESET_ON_CLOSE

if TYPE_CHECKING:
    from lbproxy.worker.relay.relay import Relay

READ_BYTES = 16 * 1024  # fits most messages; after a small one, less is read at first: see read_size.py
BULK_BYTES = 64 * 1024  # as long as reads come back full
TURN_BYTES = 256 * 1024  # moved by one event before others get their turn
FULL_READS = 4  # in a row, and a pipe pays
SPLICES_A_TURN = 4
REFUSED = frozenset((errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP))  # by the kernel, or a sandbox

_WRITABLE = WRITE | ERROR | HANGUP
_READABLE = READ | ERROR | HANGUP


class End:
    """One socket of a relay, as handler and timed item of the reactor. What is read here goes to `deliver`."""

    __slots__ = (
        "_events",
        "_fd",
        "_full",
        "_may_splice",
        "_shut",
        "_size",
        "broken",
        "deadline",
        "deliver",
        "ended",
        "other",
        "outbox",
        "pipe",
        "queued_at",
        "received",
        "relay",
        "sock",
    )

    other: "End"
    deliver: Callable[[bytes], None]

    def __init__(self, relay: "Relay", sock: socket.socket) -> None:
        self.relay = relay
        self.sock = sock
        self.received = 0  # bytes
        self.outbox: bytes | Pipe = b""  # what the socket did not take yet
        self.pipe: Pipe | None = None  # through which everything comes to it, instead of through `put`
        self.ended = False  # its last byte has been read
        self.broken = False  # it takes nothing any more: what is put is dropped
        self.deadline = NEVER
        self.queued_at = NEVER
        self._fd = sock.fileno()
        self._size = READ_BYTES
        self._may_splice = True
        self._full = 0  # reads in a row that brought as much as they may
        self._events = 0  # registered for
        self._shut = False

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
        """Read and deliver, until nothing is there, or the other side does not take it, or it is others' turn.

        `is_last`: the end is there, too.
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
        """Look for the end before `data` is sent, so that both leave in one packet: 5 us less for who gets it."""
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
        if rest:  # came meanwhile; if there is still more, it is another event
            self.received += len(rest)
            self.deliver(data + rest)
            return
        self.ended = True
        if relay.is_well:
            more = socket.MSG_MORE  # until the end is passed on, which is now
        self.other.put(data, more)
        relay.settle()

    # Without a look at what passes

    def _splice(self, pipe: Pipe) -> None:
        """As `pump`, through the kernel. What is little, or not there, is for `pump` again."""
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
        """As `put`, for what is in its pipe."""
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
        """This kernel does not do it with such a socket."""
        self._may_splice = False
        self.other.drop_pipe()

    def drop_pipe(self) -> None:
        if self.pipe is not None:
            self.relay.drop_pipe(self.pipe)
            self.pipe = None

    # What comes from the other side

    def put(self, data: bytes, flags: int = 0) -> None:
        """Send it now; what is not taken waits, and the other side is not read."""
        if self.broken or not data:
            return
        if self.outbox:
            assert isinstance(self.outbox, bytes)  # nobody puts beside a pipe
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
        # More is likely to wait there. Reading it now saves changing what both are registered for, and back.
        self.other.pump()
        relay.settle()

    def abandon(self) -> None:
        """It takes nothing any more."""
        self.broken = True
        self.outbox = b""
        self.drop_pipe()

    def hang_up(self) -> None:
        """Half-close: nothing more is put here. Not while bytes wait."""
        if not self.outbox and not self._shut:
            self._shut = True
            try:  # noqa: SIM105 (suppress costs as much as the shutdown)
                self.sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # reset meanwhile: the next read reports it

    def watch(self) -> None:
        """Register for what can go on. For nothing means not at all: an empty mask would spin on a hang-up."""
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
