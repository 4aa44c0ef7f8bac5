"""The lines of the access log, for `lbproxy logs access`: from its file, and from the workers that write it.

The file has the old lines, the workers have the newest ones, wherever the log goes: also standard output.
"""

import calendar
import os
import re
import socket
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from typing import Any, Protocol

import trio

from lbproxy.link.channel import Channel
from lbproxy.link.messages import CopyAccess
from lbproxy.telemetry.line_copies import END_OF_RECENT, MESSAGE_BYTES

TAIL_BYTES = 1024 * 1024
ANSWER_S = 2.0  # for the recent lines of a worker
_COMBINED_TIME = re.compile(r"\[(\d\d)/([A-Z][a-z][a-z])/(\d{4}):(\d\d):(\d\d):(\d\d) \+0000\]")
_JSON_TIME = re.compile(r'"time":"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)\.(\d{3})Z')
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class WorkersLike(Protocol):
    def channels(self) -> dict[int, Channel]: ...
    async def wait_channels(self, known: Any) -> None: ...


class WorkerLines:
    """The access lines of all workers: first the recent ones, then, with `follow`, the further ones.

    Also of workers that start later.
    """

    def __init__(self, workers: WorkersLike, *, follow: bool) -> None:
        self._workers = workers
        self._follow = follow
        self._asked: set[int] = set()
        self._sockets: list[trio.socket.SocketType] = []

    async def recent(self) -> list[str]:
        """The recent lines of the workers that serve, in the order of time."""
        lines: list[str] = []
        with trio.move_on_after(ANSWER_S):
            async with trio.open_nursery() as nursery:
                for ours in self._ask():
                    nursery.start_soon(self._read_recent, ours, lines)
        return sorted(lines, key=lambda line: line_time(line) or 0.0)

    async def further(self, stopped: trio.Event) -> list[str]:
        """The next lines; returns when there are some. Empty: lbproxy has stopped, and there will be no more."""
        while True:
            for ours in self._ask():
                lines: list[str] = []
                await self._read_recent(ours, lines)  # of a worker that has just been started
                if lines:
                    return lines
            for ours in list(self._sockets):
                if lines := self._read(ours):
                    return lines
            if stopped.is_set():
                return []
            await self._wait_any(stopped)

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()

    def _ask(self) -> list[trio.socket.SocketType]:
        """Ask the workers that were not asked yet. Returns our end of each connection."""
        fresh = []
        for pid, channel in self._workers.channels().items():
            if pid not in self._asked:
                self._asked.add(pid)
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                channel.post(CopyAccess(self._follow), give=[theirs])
                fresh.append(trio.socket.from_stdlib_socket(ours))
        self._sockets += fresh
        return fresh

    async def _read_recent(self, ours: trio.socket.SocketType, lines: list[str]) -> None:
        with trio.move_on_after(ANSWER_S):
            while (message := await ours.recv(MESSAGE_BYTES)) not in (END_OF_RECENT, b""):
                lines += _lines(message)

    def _read(self, ours: trio.socket.SocketType) -> list[str]:
        """What has come; a worker that has ended is forgotten."""
        lines: list[str] = []
        try:
            while message := os.read(ours.fileno(), MESSAGE_BYTES):
                lines += _lines(message)
        except BlockingIOError:
            return lines
        except OSError:
            pass
        self._sockets.remove(ours)
        ours.close()
        return lines

    async def _wait_any(self, stopped: trio.Event) -> None:
        async with trio.open_nursery() as nursery:

            async def first(wait: Callable[..., Any], *arguments: Any) -> None:
                await wait(*arguments)
                nursery.cancel_scope.cancel()

            nursery.start_soon(first, self._workers.wait_channels, self._asked)
            nursery.start_soon(first, stopped.wait)
            for sock in self._sockets:
                nursery.start_soon(first, trio.lowlevel.wait_readable, sock.fileno())


async def access_lines(
    path: str | None, workers: WorkersLike, *, count: int, since: float, follow: trio.Event | None
) -> AsyncGenerator[Mapping[str, Any], None]:
    """The last `count` lines that are not older than `since` (of the epoch). `path`: None without a file.

    `follow`: go on until this is set.
    """
    tail = await trio.to_thread.run_sync(tail_of, path) if path is not None else []
    copies = WorkerLines(workers, follow=follow is not None)
    try:
        if follow is not None or path is None:
            known = Counter(tail)
            for line in await copies.recent():
                known[line] -= 1
                if known[line] < 0:  # not in the file yet, or there is none
                    tail.append(line)
        wanted = [line for line in tail if (line_time(line) or since) >= since]
        for line in wanted[max(0, len(wanted) - count) :]:
            yield {"line": line}
        while follow is not None and (lines := await copies.further(follow)):
            for line in lines:
                yield {"line": line}
    finally:
        copies.close()


def tail_of(path: str) -> list[str]:
    """The lines in the last MiB of a file. If it cannot be read, one line that says why."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            lines = file.read().split(b"\n")
    except OSError as exc:
        return [f"{path}: {exc.strerror}"]
    if size > TAIL_BYTES:
        del lines[0]
    return [line.decode("utf-8", "backslashreplace") for line in lines if line]


def line_time(line: str) -> float | None:
    """When the exchange of a line began, in seconds of the epoch; None for a line without a time that we know."""
    if match := _COMBINED_TIME.search(line):
        day, month, *rest = match.groups()
        if month not in _MONTHS:
            return None
        year, *clock = map(int, rest)
        return float(calendar.timegm((year, _MONTHS.index(month) + 1, int(day), *clock)))
    if match := _JSON_TIME.search(line):
        *clock, milliseconds = map(int, match.groups())
        return calendar.timegm(tuple(clock)) + milliseconds / 1000
    return None


def _lines(message: bytes) -> Iterator[str]:
    return (line.decode("utf-8", "backslashreplace") for line in message.split(b"\n") if line)
