"""The children of control: control spawns them through `Children`, and as PID 1 it also reaps orphans.

A process whose parent dies becomes a child of PID 1. In a container that is control. Knows no backend.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import trio

from lbproxy.supervise.found_process import FoundProcess
from lbproxy.supervise.session import is_zombie

PATIENCE_S = 1.0


class Children:
    """The children that control itself waits for."""

    def __init__(self) -> None:
        self._own: set[int] = set()
        self._spawning = 0
        self._settled = trio.Event()

    async def spawn(self, command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        """`subprocess.Popen(command, **options)`, in a thread. The caller waits for the child, then calls `forget`."""
        self._spawning += 1
        try:
            # Shielded: a spawn that is cancelled half-way would leave a child without an owner.
            with trio.CancelScope(shield=True):
                child = await trio.to_thread.run_sync(lambda: subprocess.Popen(command, **options))
            self._own.add(child.pid)
            return child
        finally:
            self._spawning -= 1
            if not self._spawning:
                self._settled.set()
                self._settled = trio.Event()

    @property
    def is_spawning(self) -> bool:
        """Whether a child is being made in a thread right now."""
        return self._spawning > 0

    def adopt(self, pid: int) -> FoundProcess:
        """A child that an earlier program of this process has spawned. Its owner waits for it, then calls `forget`."""
        self._own.add(pid)
        return FoundProcess(pid)

    def forget(self, pid: int) -> None:
        """The owner has waited for the child."""
        self._own.discard(pid)

    async def run(self) -> None:
        """Reap orphans for ever. Returns at once where no orphan can become a child of control."""
        if not adopts_orphans():
            return
        with trio.open_signal_receiver(signal.SIGCHLD) as signals:
            await self.reap_orphans()  # those of the time before
            async for _ in signals:
                await self.reap_orphans()

    async def reap_orphans(self) -> None:
        """Reap the zombies that no owner in this process has waited for within PATIENCE_S.

        The pause is for children that are not spawned through `Children`: their owner waits for them at once.
        """
        zombies = _zombies() - self._own
        if zombies:
            await trio.sleep(PATIENCE_S)
        # A child that is being spawned is not in `_own` yet.
        while self._spawning:
            await self._settled.wait()
        for pid in zombies - self._own:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)  # noqa: ASYNC222 (it does not wait)


def adopts_orphans() -> bool:
    """Whether this process is PID 1 or a subreaper."""
    if os.getpid() == 1:
        return True
    answer = ctypes.c_int(0)
    pr_get_child_subreaper = 37
    ctypes.CDLL(None, use_errno=True).prctl(pr_get_child_subreaper, ctypes.byref(answer), 0, 0, 0)
    return bool(answer.value)


def _zombies() -> set[int]:
    """The dead children of this process. Each thread has children of its own."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            found.update(int(pid) for pid in (task / "children").read_text().split())
    return {pid for pid in found if is_zombie(pid)}
