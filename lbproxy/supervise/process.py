"""One process and all that it starts: spawned in a session of its own, heard, signalled, buried.

Knows no pool, no probe and no policy. Linux: a pidfd tells of the death while the pid still is the dead one's, so no
signal of ours can reach a stranger, and the leader is reaped last.
"""

import contextlib
import fcntl
import os
import signal
import subprocess
from functools import partial
from typing import Any

import trio

from lbproxy.supervise.command import CannotStart, Order
from lbproxy.supervise.guard_handle import Guard
from lbproxy.supervise.output import LineSplitter
from lbproxy.supervise.output_forwarder import OutputForwarder
from lbproxy.supervise.reap import Children
from lbproxy.supervise.session import MARK, signal_name, signal_others, signal_session

PIPE_BYTES = 256 * 1024
READ_BYTES = 64 * 1024
LAST_OUTPUT_S = 0.5  # for the output of the dead: a daemon that left the session may hold the pipe open for ever
REAP_S = 10.0


class Child:
    """Owned by the one task that spawned it, which calls `wait_dead` and `reap`."""

    def __init__(
        self, popen: "subprocess.Popen[bytes]", pidfd: int, output: int, mark: str, owners: tuple[Children, Guard]
    ) -> None:
        self._popen = popen
        self._pidfd = pidfd
        self._output = trio.lowlevel.FdStream(output)
        self.mark = mark
        self._children, self._guard = owners
        self._output_ended = trio.Event()
        self._output_ended.set()
        self.pid = popen.pid

    @classmethod
    async def spawn(cls, order: Order, children: Children, guard: Guard) -> "Child":
        """Raises CannotStart."""
        try:
            read_end, write_end = os.pipe()
        except OSError as exc:
            raise CannotStart(f"cannot start: {exc.strerror}") from None
        with contextlib.suppress(OSError):  # over the user's share of pipe memory: the usual size will do
            fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        mark = guard.new_mark()
        user = order.user
        who: dict[str, Any] = {}
        if user is not None:
            who = {"user": user.uid, "group": user.gid, "extra_groups": user.groups}
        try:
            popen = await children.spawn(
                order.command,
                stdin=subprocess.DEVNULL,
                stdout=write_end,
                stderr=write_end,
                cwd=order.directory,
                env={**order.env, MARK: mark},
                start_new_session=True,
                pass_fds=() if order.fd is None else (order.fd,),
                **who,
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

    def is_alive(self) -> bool:
        return self.code() is None

    def code(self) -> int | None:
        """The return code (as Popen's) of a dead leader that is not reaped yet; None while it lives."""
        ended = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            return None
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status

    def signal(self, number: int) -> None:
        """To the whole process group."""
        signal_session(self.pid, number)

    async def wait_dead(self) -> None:
        """Until the leader is dead. It is not reaped yet: its number stays its own."""
        await trio.lowlevel.wait_readable(self._pidfd)

    async def forward_output(self, forwarder: OutputForwarder) -> None:
        """Read the output until all who could write are gone."""
        self._output_ended = trio.Event()
        splitter = LineSplitter()
        data = b"-"
        try:
            while data:
                with trio.move_on_at(forwarder.settle_at):
                    data = await self._output.receive_some(READ_BYTES)
                    forwarder.take(splitter.feed(data) if data else splitter.end())
                forwarder.settle()
        finally:
            forwarder.settle(over=True)
            self._output.close()
            self._output_ended.set()

    async def wait_rest_gone(self, patience_s: float) -> None:
        """After the leader's death: until the rest of it has left by itself, at most `patience_s`. Those whom a signal
        to the process group does not reach are told now."""
        if patience_s > 0:
            others = partial(signal_others, self.pid, signal.SIGTERM, self.mark, in_group=False)
            with trio.move_on_after(patience_s):
                await _wait_gone(await trio.to_thread.run_sync(others))

    async def reap(self) -> int:
        """KILL to what is left of it, the leader too if it lives; its output is read to the end; it is
        reaped. Returns its return code (as Popen's). Not to be cancelled, but it ends within ten seconds."""
        with trio.move_on_after(REAP_S, shield=True):
            self.signal(signal.SIGKILL)
            await self.wait_dead()
            # Once more while somebody is left: what was born between the look and the KILL is found by the next look.
            while left := await trio.to_thread.run_sync(signal_others, self.pid, signal.SIGKILL, self.mark):
                await _wait_gone(left)
            with trio.move_on_after(LAST_OUTPUT_S):
                await self._output_ended.wait()
        self._guard.remove(self.pid)
        code = self._popen.poll()
        if code is None:  # stuck in the kernel: the guard's affair from now on
            self._guard.add(self.pid)
        self._children.forget(self.pid)
        os.close(self._pidfd)
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
    """Of a return code as Popen has it: "exit code 3", "signal SIGKILL"."""
    return f"exit code {code}" if code >= 0 else f"signal {signal_name(-code)}"
