"""The sink of log lines: a bounded queue in front of one thread that does the blocking writes.

Knows bytes and one descriptor. Does not know events, formats or Trio. The writer of a line never waits: a stalled
reader or a full disk costs lines, which are counted, and nothing else.

Why a thread and not O_NONBLOCK: the flag belongs to the open file, so setting it on an inherited stdout would change
it for every process that shares the terminal or the pipe.
"""

import os
import select
import stat
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue

from lbproxy.telemetry.line_copies import LineCopies

LOSS_EVERY_S = 5.0  # at most so often it is said how many lines were lost
QUEUE_BYTES = 1024 * 1024
PIPE_BATCH_BYTES = 4096  # PIPE_BUF: a write of at most this is whole, also when several processes share the pipe
FILE_BATCH_BYTES = 64 * 1024
ENTRY_BYTES = 64  # what an entry costs in memory beside its bytes


class Sink:
    """Whole lines to one file, pipe, socket or terminal. `write` never blocks and never raises.

    `target` is a descriptor, which stays open in the end unless it is `owned`, or a path, which is appended to. Raises
    OSError when the path cannot be opened.
    """

    def __init__(
        self,
        target: int | str,
        *,
        owned: bool = False,
        queue_bytes: int = QUEUE_BYTES,
        copies: LineCopies | None = None,
    ) -> None:
        self._path = target if isinstance(target, str) else None
        self._owned = owned or self._path is not None
        self._fd = open_for_append(target) if isinstance(target, str) else target
        self._batch_bytes = _batch_bytes(self._fd)
        self._queue_bytes = queue_bytes
        self._copies = copies
        self._entries: SimpleQueue[bytes | int | None] = SimpleQueue()  # int: a descriptor to go on with; None: the end
        # One writer for each counter, so that no lock is needed: the first two belong to the callers' thread.
        self._put_bytes = 0
        self._refused = 0
        self._taken_bytes = 0
        self._failed = 0
        self._told = 0
        self._told_at = float("-inf")
        self._fresh_line = True
        self._closed = False
        self._describe_loss: Callable[[int], bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="lbproxy-log", daemon=True)
        self._thread.start()

    @property
    def is_terminal(self) -> bool:
        return os.isatty(self._fd)

    @property
    def dropped(self) -> int:
        """Lines lost so far."""
        return self._refused + self._failed

    @property
    def backlog_bytes(self) -> int:
        return self._put_bytes - self._taken_bytes

    def describe_losses(self, describe: Callable[[int], bytes]) -> None:
        """`describe` makes the line that says how many were lost; it is written when lines flow again.

        It is called in the sink's thread.
        """
        self._describe_loss = describe

    def write(self, lines: bytes) -> None:
        """Queue whole lines, each with its line end."""
        cost = len(lines) + ENTRY_BYTES
        if self._closed or self._put_bytes - self._taken_bytes + cost > self._queue_bytes:
            self._refused += lines.count(b"\n")
            return
        self._put_bytes += cost
        self._entries.put(lines)

    def reopen(self) -> None:
        """Open the path again. Queued lines still go to the old file. Raises OSError, and then keeps the old file."""
        if self._path is not None and not self._closed:
            self._entries.put(open_for_append(self._path))

    def go_on_with(self, fd: int) -> None:
        """Same as `reopen`, for an owned descriptor. `fd` is the sink's from now on."""
        if self._closed:
            os.close(fd)
        else:
            self._entries.put(fd)

    def close(self, timeout_s: float) -> None:
        """Write the queued lines, for at most `timeout_s`. Blocks: this is for the end of a process."""
        if not self._closed:
            self._closed = True
            self._entries.put(None)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            entry = self._next()
            batch: list[bytes] = []
            cost = 0
            while isinstance(entry, bytes):
                batch.append(entry)
                cost += len(entry) + ENTRY_BYTES
                if cost >= self._batch_bytes:
                    break
                try:
                    entry = self._entries.get_nowait()
                except Empty:
                    break
            if batch:
                lines = b"".join(batch)
                self._write_lines(lines)
                self._taken_bytes += cost
                if self._copies is not None:
                    self._copies.put(lines)
            if isinstance(entry, int):
                self._change_to(entry)
            elif not isinstance(entry, bytes):
                self._tell_losses()  # the last time, however short ago it was said before
                if self._owned:
                    os.close(self._fd)
                return
            elif time.monotonic() >= self._told_at + LOSS_EVERY_S:
                self._tell_losses()

    def _next(self) -> bytes | int | None:
        """The next entry. Losses that were not told yet are told meanwhile, when it is time."""
        while self.dropped != self._told:
            try:
                return self._entries.get(timeout=max(0.0, self._told_at + LOSS_EVERY_S - time.monotonic()))
            except Empty:
                self._tell_losses()
        return self._entries.get()

    def _change_to(self, fd: int) -> None:
        old, self._fd = self._fd, fd
        self._batch_bytes = _batch_bytes(fd)
        self._fresh_line = True
        os.close(old)

    def _write_lines(self, lines: bytes) -> None:
        """Write as much as goes; count what does not. Only whole lines count as written."""
        at = 0
        while at < len(lines):
            end = at + self._batch_bytes
            if end < len(lines):
                # A line that is longer than a batch goes alone: it cannot be kept whole on a pipe anyway.
                end = lines.rfind(b"\n", at, end) + 1 or lines.find(b"\n", at) + 1 or len(lines)
            lost = self._write_batch(lines[at:end])
            if lost:
                self._failed += lost + lines.count(b"\n", end)
                return
            at = end

    def _write_batch(self, batch: bytes) -> int:
        """One write where the kernel takes it in one. Returns how many lines were lost."""
        rest = memoryview(batch if self._fresh_line else b"\n" + batch)
        while rest:
            try:
                written = os.write(self._fd, rest)
            except BlockingIOError:  # another program made the descriptor non-blocking
                poll = select.poll()
                poll.register(self._fd, select.POLLOUT)
                poll.poll()
                continue
            except OSError:
                return min(bytes(rest).count(b"\n"), batch.count(b"\n"))
            self._fresh_line = rest[written - 1] == 10 if written else self._fresh_line
            rest = rest[written:]
        return 0

    def _tell_losses(self) -> None:
        lost = self.dropped - self._told
        self._told_at = time.monotonic()
        if lost and self._describe_loss is not None and not self._write_batch(self._describe_loss(lost)):
            self._told += lost


def open_for_append(path: str) -> int:
    """Open the path. Never blocks, not even on a FIFO without a reader (ENXIO)."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o644)
    os.set_blocking(fd, True)
    return fd


def _batch_bytes(fd: int) -> int:
    try:
        return FILE_BATCH_BYTES if stat.S_ISREG(os.fstat(fd).st_mode) else PIPE_BATCH_BYTES
    except OSError:
        return PIPE_BATCH_BYTES


def is_same_file(one: int, other: int) -> bool:
    """Whether two descriptors lead to the same file, pipe, socket or terminal."""
    try:
        return os.path.sameopenfile(one, other)
    except OSError:
        return False
