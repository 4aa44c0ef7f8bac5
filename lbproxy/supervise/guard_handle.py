"""Control's end of the guard: keeps the guard process running and tells it of every process group.

Does not know backends, nor what the guard does at the end of file (guard.py).
"""

import os
import secrets
import subprocess
import sys
from collections.abc import Callable

import trio

from lbproxy.supervise.found_process import FoundProcess
from lbproxy.supervise.handed_on import HandedGuard
from lbproxy.supervise.program_copy import import_path
from lbproxy.supervise.reap import Children
from lbproxy.telemetry.events import Event, Notice

RESPAWN_S = 0.1  # doubled each time that the guard dies at once, up to:
RESPAWN_MAX_S = 10.0
GUARD_EXIT_S = 10.0  # the guard needs a little more than 2 seconds for backends that ignore TERM


class Guard:
    """`run` keeps a guard process running. When `run` ends, the guard ends the process groups that are left."""

    def __init__(self, children: Children, emit: Callable[[Event], None]) -> None:
        self._children = children
        self._emit = emit
        self._groups: set[int] = set()
        self._mark = secrets.token_hex(8)
        self._next_number = 1
        self._found: FoundProcess | None = None  # the guard that an earlier program of this control has started
        self._pipe: int | None = None
        self._unsent = bytearray()
        self._more = trio.Event()
        self._listening = trio.Event()
        self.pid: int | None = None

    def __repr__(self) -> str:
        state = f"pid {self.pid}" if self.pid is not None else "not running"
        return f"<Guard {state}, {len(self._groups)} process groups, {len(self._unsent)} bytes unsent>"

    def new_mark(self) -> str:
        """A mark for the environment of one process (session.MARK). The guard ends all processes that carry it."""
        number, self._next_number = self._next_number, self._next_number + 1
        return f"{self._mark}.{number}"

    def hand_on(self) -> HandedGuard | None:
        """None while no guard runs."""
        if self._pipe is None or self.pid is None:
            return None
        groups, unsent = tuple(sorted(self._groups)), self._unsent.hex()
        return HandedGuard(self.pid, self._pipe, self._mark, self._next_number, groups, unsent)

    def take_over(self, handed: HandedGuard) -> None:
        """Before `run`. The process is told nothing anew: it has its list, and goes on with the rest of a line."""
        self._mark, self._next_number, self._groups = handed.mark, handed.next_number, set(handed.groups)
        self._unsent = bytearray.fromhex(handed.unsent)
        self._found, self._pipe, self.pid = self._children.adopt(handed.pid), handed.pipe_fd, handed.pid
        os.set_inheritable(handed.pipe_fd, False)

    def know(self, pgid: int, lives: bool) -> None:
        """`add` or `remove`, for a process whose environment the guard cannot read."""
        if lives:
            self.add(pgid)
        else:
            self.remove(pgid)

    def add(self, pgid: int) -> None:
        """Never blocks."""
        self._groups.add(pgid)
        self._send(b"+%d\n" % pgid)

    def remove(self, pgid: int) -> None:
        """Never blocks. Call it before the leader is reaped: after that the number can be another group's."""
        self._groups.discard(pgid)
        self._send(b"-%d\n" % pgid)

    async def wait_listening(self) -> None:
        """Returns when a guard has been started."""
        await self._listening.wait()

    async def run(self) -> None:
        delay_s = RESPAWN_S
        while True:
            began = trio.current_time()
            how = await self._run_once()
            delay_s = RESPAWN_S if trio.current_time() - began > 10.0 else min(2 * delay_s, RESPAWN_MAX_S)
            self._emit(Notice(f"the guard died ({how}): starting another in {delay_s:g}s"))
            await trio.sleep(delay_s)

    async def _run_once(self) -> str:
        if self._found is not None and self._pipe is not None:
            found, self._found = self._found, None
            return await self._attend(found, self._pipe)
        try:
            read_end, write_end = os.pipe()
        except OSError as exc:
            return str(exc)
        try:
            process = await self._spawn(read_end)
        except OSError as exc:
            os.close(write_end)
            return str(exc)
        finally:
            os.close(read_end)
        groups = b"".join(b"+%d\n" % group for group in self._groups)
        self._unsent = bytearray(b"=%s\n%s" % (self._mark.encode(), groups))
        return await self._attend(process, write_end)

    async def _attend(self, process: "subprocess.Popen[bytes] | FoundProcess", pipe: int) -> str:
        """Tell the guard what it must know, until it is dead."""
        pidfd = None
        try:
            pidfd = os.pidfd_open(process.pid)
            return await self._serve(process.pid, pidfd, pipe)
        except OSError as exc:
            return str(exc)
        finally:
            self._pipe = self.pid = None
            os.close(pipe)  # end of file: the guard ends what is left
            if pidfd is not None:
                with trio.move_on_after(GUARD_EXIT_S, shield=True):
                    await trio.lowlevel.wait_readable(pidfd)
                os.close(pidfd)
            process.kill()
            process.wait()
            self._children.forget(process.pid)

    async def _spawn(self, orders: int) -> "subprocess.Popen[bytes]":
        # The import path is that of this package, whatever the working directory and the environment say. Without site:
        # 10 ms, 8 MB.
        command = [sys.executable, "-P", "-S", "-m", "lbproxy.supervise.guard"]
        return await self._children.spawn(
            command,
            stdin=orders,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
            env={**os.environ, "PYTHONPATH": import_path()},
        )

    async def _serve(self, pid: int, pidfd: int, pipe: int) -> str:
        os.set_blocking(pipe, False)
        self._pipe, self.pid = pipe, pid
        self._write()
        if self._unsent:
            self._more.set()
        self._listening.set()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._flush)
            await trio.lowlevel.wait_readable(pidfd)
            nursery.cancel_scope.cancel()
        return f"pid {pid}"

    def _send(self, lines: bytes) -> None:
        if self._pipe is None:
            return  # the next guard is sent the whole list
        waits = bool(self._unsent)
        self._unsent += lines
        if not waits:
            self._write()
        if self._unsent:
            self._more.set()

    def _write(self) -> None:
        assert self._pipe is not None
        try:
            while self._unsent:
                del self._unsent[: os.write(self._pipe, self._unsent)]
        except BlockingIOError:
            pass
        except BrokenPipeError:
            self._unsent.clear()  # the guard is dead; the next one is sent the whole list

    async def _flush(self) -> None:
        """Write the lines that did not fit into the pipe."""
        while True:
            await self._more.wait()
            self._more = trio.Event()
            while self._unsent and self._pipe is not None:
                await trio.lowlevel.wait_writable(self._pipe)
                self._write()
