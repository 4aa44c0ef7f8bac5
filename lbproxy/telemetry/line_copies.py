"""The newest lines of a log, and the sockets that get a copy of each further line.

Knows no format and no reader. Costs a deque's append for each write while nobody asks. Used by a sink's thread and by
the thread that adds readers, so every method takes the lock.
"""

import contextlib
import socket
import threading
from collections import deque
from collections.abc import Iterator

RECENT_BYTES = 64 * 1024
MESSAGE_BYTES = 32 * 1024  # a SEQPACKET message is sent whole or not at all, so no line is ever cut
END_OF_RECENT = b"\n"  # the message behind the recent lines


class LineCopies:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._recent: deque[bytes] = deque()
        self._recent_bytes = 0
        self._readers: list[socket.socket] = []

    def put(self, lines: bytes) -> None:
        """Whole lines. A reader that is too slow for them misses them."""
        with self._lock:
            self._recent.append(lines)
            self._recent_bytes += len(lines)
            while self._recent_bytes > RECENT_BYTES and len(self._recent) > 1:
                self._recent_bytes -= len(self._recent.popleft())
            if self._readers:
                self._readers = [reader for reader in self._readers if _copy(reader, lines)]

    def add(self, reader: socket.socket, *, follow: bool) -> None:
        """Send the recent lines to a SEQPACKET socket; with `follow` the further ones, too. Owns the socket."""
        reader.setblocking(False)
        with self._lock:
            self._readers = [other for other in self._readers if _is_there(other)]
            recent = b"".join(self._recent)
            if len(recent) > RECENT_BYTES:
                recent = recent[recent.find(b"\n", len(recent) - RECENT_BYTES) + 1 :]
            stays = _copy(reader, recent) and _send(reader, END_OF_RECENT)
            if stays and follow:
                self._readers.append(reader)
            elif stays:
                reader.close()

    def close(self) -> None:
        with self._lock:
            while self._readers:
                self._readers.pop().close()


def _copy(reader: socket.socket, lines: bytes) -> bool:
    """Whether the reader is still there. One that has gone is closed."""
    return all(_send(reader, message) for message in _messages(lines))


def _is_there(reader: socket.socket) -> bool:
    try:
        gone = reader.recv(1) == b""
    except BlockingIOError:
        return True
    except OSError:
        gone = True
    if gone:
        reader.close()
    return not gone


def _send(reader: socket.socket, message: bytes) -> bool:
    try:
        with contextlib.suppress(BlockingIOError):
            reader.send(message)
    except OSError:
        reader.close()
        return False
    return True


def _messages(lines: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(lines):
        end = len(lines)
        if end - at > MESSAGE_BYTES:
            # A line that is longer than a message is cut: lines of a log are not that long.
            end = lines.rfind(b"\n", at, at + MESSAGE_BYTES) + 1 or at + MESSAGE_BYTES
        yield lines[at:end]
        at = end
