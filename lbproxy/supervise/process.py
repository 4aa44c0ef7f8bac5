"""A child process and all processes that it starts: spawned in a session of its own, read, signalled and reaped.

Knows no pool, no probe and no policy. Linux: a pidfd reports the death while the pid still belongs to the dead process.
The leader is reaped last, so no signal of ours can reach another program.
"""

import contextlib
import fcntl
import os
import signal
import subprocess
from functools import partial
from typing import Any, Protocol

import trio

from lbproxy.supervise.command import CannotStart, Order
from lbproxy.supervise.found_process import FoundProcess
from lbproxy.supervise.guard_handle import Guard
from lbproxy.supervise.handed_on import HandedEndpoint, HandedProcess
from lbproxy.supervise.output import LineSplitter
from lbproxy.supervise.reap import Children
from lbproxy.supervise.session import MARK, signal_name, signal_others, signal_session

OUTPUT_PIPE_BYTES = 256 * 1024
OUTPUT_READ_BYTES = 64 * 1024
LAST_OUTPUT_S = 0.5  # for the output after the death: a daemon that left the session may hold the pipe open for ever
REAP_S = 10.0


class TakesLines(Protocol):
    """Where output goes; see OutputForwarder."""

    @property
    def report_at(self) -> float: ...
    def take(self, lines: list[bytes]) -> None: ...
    def report(self, *, over: bool = False) -> None: ...


class Child:
    """Owned by the task that spawned it. That task calls `wait_dead` and `reap`."""

    def __init__(
        self,
        popen: "subprocess.Popen[bytes] | FoundProcess",
        pidfd: int,
        output: int,
        mark: str,
        owners: tuple[Children, Guard],
    ) -> None:
        self._popen = popen
        self._pidfd = pidfd
        self._output = trio.lowlevel.FdStream(output)
        self._splitter = LineSplitter()
        self.mark = mark
        self._children, self._guard = owners
        self._output_ended = trio.Event()
        self._output_ended.set()
        self._reaped = False
        self.pid = popen.pid

    def __repr__(self) -> str:
        state = "reaped" if self._reaped else "alive" if self.is_alive() else "dead, not reaped"
        reading = "" if self._output_ended.is_set() else ", reading its output"
        return f"<Child pid {self.pid}, {state}{reading}>"

    @classmethod
    async def spawn(cls, order: Order, children: Children, guard: Guard) -> "Child":
        """Raises CannotStart."""
        try:
            read_end, write_end = os.pipe()
        except OSError as exc:
            raise CannotStart(f"cannot start: {exc.strerror}") from None
        with contextlib.suppress(OSError):  # over the user's share of pipe memory: the usual size will do
            fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, OUTPUT_PIPE_BYTES)
        mark = guard.new_mark()
        user = order.user
        credentials: dict[str, Any] = {}
        if user is not None:
            credentials = {"user": user.uid, "group": user.gid, "extra_groups": user.groups}
        try:
            popen = await children.spawn(
                order.command,
                stdin=subprocess.DEVNULL,
                stdout=write_end,
                stderr=write_end,
                cwd=order.directory,
                env={**order.env, MARK: mark},
                start_new_session=True,
                pass_fds=(*order.fds, *(() if order.fd is None else (order.fd,))),
                **credentials,
            )
        except (OSError, ValueError, subprocess.SubprocessError) as exc:
            os.close(read_end)
            raise CannotStart(f"cannot execute {order.command[0]}: {_reason(exc)}") from None
        finally:
            os.close(write_end)
        guard.add(popen.pid)
        try:
            pidfd = os.pidfd_open(popen.pid)
        except OSError as exc:
            signal_session(popen.pid, signal.SIGKILL)
            guard.remove(popen.pid)
            popen.wait()
            children.forget(popen.pid)
            os.close(read_end)
            raise CannotStart(f"cannot watch the new process: {_reason(exc)}") from None
        return cls(popen, pidfd, read_end, mark, (children, guard))

    @classmethod
    def take_over(cls, handed: HandedProcess, children: Children, guard: Guard) -> "Child":
        """The process of a backend that an earlier program of this control has spawned. Raises OSError if it is gone
        and reaped, which nobody but its owner does."""
        output = handed.output_fd if handed.output_fd >= 0 else os.open(os.devnull, os.O_RDONLY)
        os.set_inheritable(output, False)
        pidfd = os.pidfd_open(handed.pid)
        child = cls(children.adopt(handed.pid), pidfd, output, handed.mark, (children, guard))
        child._splitter = LineSplitter(bytes.fromhex(handed.cut_line))
        return child

    def hand_on(self, endpoint: HandedEndpoint) -> HandedProcess:
        return HandedProcess(self.pid, self.mark, self._output.fileno(), self._splitter.rest.hex(), endpoint)

    def is_alive(self) -> bool:
        return self.code() is None

    def code(self) -> int | None:
        """The return code (as Popen's) of a dead leader that is not reaped yet; None while it runs."""
        ended = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            return None
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status

    def signal(self, number: int) -> None:
        """Signal the whole process group."""
        signal_session(self.pid, number)

    async def wait_dead(self) -> None:
        """Returns when the leader is dead. It is not reaped yet, so no other process can have its pid."""
        await trio.lowlevel.wait_readable(self._pidfd)

    async def finish(self, forwarder: TakesLines, limit_s: float, *, term_s: float = 0.0) -> int | None:
        """Forward the output until the process is dead and nothing of it is left; returns its exit code.

        None: it was not over within `limit_s`. Then it gets TERM if there is a `term_s`, and KILL that much later.
        """
        code: int | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.forward_output, forwarder)
                with trio.move_on_after(limit_s) as limit:
                    await self.wait_dead()
                if limit.cancelled_caught and term_s:
                    self.signal(signal.SIGTERM)
                    with trio.move_on_after(term_s):
                        await self.wait_dead()
                code = await self.reap()
                nursery.cancel_scope.cancel()  # a daemon that was let go may hold the pipe open for ever
        except BaseException:
            if code is None:
                await self.reap()
            raise
        return None if limit.cancelled_caught else code

    async def forward_output(self, forwarder: TakesLines) -> None:
        """Read the output until every process that could write has ended."""
        self._output_ended = trio.Event()
        splitter = self._splitter
        data = b"-"
        try:
            while data:
                with trio.move_on_at(forwarder.report_at):
                    data = await self._output.receive_some(OUTPUT_READ_BYTES)
                    forwarder.take(splitter.feed(data) if data else splitter.end())
                forwarder.report()
        finally:
            forwarder.report(over=True)
            self._output.close()
            self._output_ended.set()

    async def wait_rest_gone(self, patience_s: float) -> None:
        """Wait at most `patience_s` until the other processes of a dead leader have exited by themselves.

        Processes that a signal to the process group does not reach get TERM now.
        """
        if patience_s > 0:
            others = partial(signal_others, self.pid, signal.SIGTERM, self.mark, in_group=False)
            with trio.move_on_after(patience_s):
                await _wait_gone(await trio.to_thread.run_sync(others))

    async def reap(self) -> int:
        """KILL what is left (also the leader), read the output to its end, and reap the leader.

        Returns its return code (as Popen's). Cannot be cancelled; ends within REAP_S.
        """
        with trio.move_on_after(REAP_S, shield=True):
            self.signal(signal.SIGKILL)
            await self.wait_dead()
            # Repeated until none is left: a process born between the look and the KILL is found by the next look.
            while left := await trio.to_thread.run_sync(signal_others, self.pid, signal.SIGKILL, self.mark):
                await _wait_gone(left)
            with trio.move_on_after(LAST_OUTPUT_S):
                await self._output_ended.wait()
        self._guard.remove(self.pid)
        code = self._popen.poll()
        if code is None:  # stuck in the kernel: from now on the guard is responsible for it
            self._guard.add(self.pid)
        self._children.forget(self.pid)
        os.close(self._pidfd)
        self._reaped = True
        return -signal.SIGKILL if code is None else code


async def _wait_gone(pids: list[int]) -> None:
    for pid in pids:
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            continue  # gone already
        try:
            await trio.lowlevel.wait_readable(pidfd)
        finally:
            os.close(pidfd)


def _reason(exc: BaseException) -> str:
    return exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)


def how_it_ended(code: int) -> str:
    """A return code (as Popen's) in words: "exit code 3", "signal SIGKILL"."""
    return f"exit code {code}" if code >= 0 else f"signal {signal_name(-code)}"
