"""A child of this process that an earlier program has spawned, before it executed this one in its place.

It is our child as any other: its end is told by a pidfd, and its exit code is ours to read.
"""

import contextlib
import os
import signal

import trio


class FoundProcess:
    """The part of subprocess.Popen that its owners use, and `wait_dead`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def __repr__(self) -> str:
        state = "running" if self.returncode is None else f"ended with {self.returncode}"
        return f"<FoundProcess {self.pid}, {state}>"

    def poll(self) -> int | None:
        return self._reap(os.WNOHANG)

    def wait(self) -> int | None:
        """Blocks."""
        return self._reap(0)

    async def wait_dead(self) -> None:
        """Returns when it has ended and its exit code is read."""
        if self.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            pidfd = os.pidfd_open(self.pid)
            try:
                await trio.lowlevel.wait_readable(pidfd)
            finally:
                os.close(pidfd)
        self._reap(os.WNOHANG)

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def _reap(self, flags: int) -> int | None:
        if self.returncode is None:
            try:
                pid, status = os.waitpid(self.pid, flags)
            except ChildProcessError:  # another reader of exit codes was quicker
                self.returncode = -signal.SIGKILL
            else:
                if pid:
                    self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode
