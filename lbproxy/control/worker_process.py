"""One worker process as control sees it: the record that workers.py keeps, and what `status` shows of it."""

import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import trio

from lbproxy.certificates.certificate_set import CertificateSet
from lbproxy.control.handed_on import HandedWorker
from lbproxy.link.channel import Channel
from lbproxy.link.messages import Stats, ToControl
from lbproxy.model import ListenerView
from lbproxy.privileges import Identity
from lbproxy.supervise.found_process import FoundProcess
from lbproxy.supervise.reap import Children

# -P: a trio.py in the working directory must not be imported. The descriptor of the link is added as an argument.
COMMAND = (sys.executable, "-P", "-m", "lbproxy.worker")
REMEMBERED_DRAINS = 4096


def worker_command(identity: Identity | None) -> tuple[str, ...]:
    """The command of a worker that becomes `identity` once it has imported what it needs."""
    return COMMAND if identity is None else (*COMMAND, str(identity))


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    id: int
    pid: int
    state: str  # starting | serving | leaving | stopping
    stats: Stats  # its newest answer
    is_old: bool = False  # of the program before an upgrade


@dataclass(slots=True, eq=False)
class WorkerProcess:
    """One worker process. A respawn makes a new one."""

    id: int  # its row in the grid is id - 1
    slot: int  # from 1: which of a listener's sockets it accepts from
    process: trio.Process | FoundProcess
    channel: Channel
    is_old: bool = False  # of the program before an upgrade: another one has its slot, or will have
    state: str = "starting"
    log: tuple[str, str] = ("off", "-")  # format and path of the access log
    born: int = 0  # epoch of its first table: it never had a lease on a backend that left before
    applied: int = 0
    holds: set[int] = field(default_factory=set)  # keys of the listeners in the last table that it was sent
    drained: dict[str, int] = field(default_factory=dict)
    took: set[str] = field(default_factory=set)  # backends of leases that it had from other workers
    stats: Stats = field(default_factory=lambda: Stats(0, 0, 0, {}))
    certificates: dict[int, CertificateSet] = field(default_factory=dict)  # that it was sent, by the listener's key
    unanswered: dict[int, tuple[ListenerView, CertificateSet]] = field(default_factory=dict)  # by serial
    asked: int = 0
    silent: trio.Event = field(default_factory=trio.Event)  # its link has ended, and every message is read

    @classmethod
    async def spawn(cls, command: Sequence[str], env: Mapping[str, str], row: int, slot: int) -> "WorkerProcess":
        """Raises OSError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            process = await trio.lowlevel.open_process(
                [*command, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=env,
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return cls(row + 1, slot, process, Channel(ours, ToControl))

    async def wait_ended(self) -> int:
        """Its exit code, when the process has ended."""
        if isinstance(self.process, FoundProcess):
            await self.process.wait_dead()
        else:
            await self.process.wait()
        assert self.process.returncode is not None
        return self.process.returncode

    def hand_on(self) -> HandedWorker:
        """While no message waits to be sent."""
        link_fd, received, received_fds = self.channel.hand_on()
        return HandedWorker(
            *(self.id, self.slot, self.process.pid, link_fd, self.state, self.channel.version),
            born=self.born,
            applied=self.applied,
            holds=tuple(sorted(self.holds)),
            drained=dict(self.drained),
            received=received.hex(),
            received_fds=received_fds,
            connections=self.stats.connections,
            served=self.stats.served,
            handed_over=dict(self.stats.handed_over),
            took=tuple(sorted(self.took)),
        )

    @classmethod
    def take_over(cls, handed: HandedWorker, children: Children, ask: int) -> "WorkerProcess":
        """A worker of an earlier program of this control. `ask`: the number of the last question to it."""
        for fd in (handed.link_fd, *handed.received_fds):
            os.set_inheritable(fd, False)
        channel = Channel(socket.socket(fileno=handed.link_fd), ToControl, handed.link_version)
        channel.take_over(bytes.fromhex(handed.received), handed.received_fds)
        worker = cls(handed.id, handed.slot, children.adopt(handed.pid), channel, True, handed.state)
        worker.born, worker.applied = handed.born, handed.applied
        worker.holds, worker.drained = set(handed.holds), dict(handed.drained)
        worker.took = set(handed.took)
        worker.stats = Stats(ask, handed.connections, handed.served, dict(handed.handed_over))
        return worker

    def take(self, backend: str) -> None:
        """It has a lease that was another worker's: that it never had the backend, or was done with it, holds no
        more."""
        self.took.add(backend)
        self.drained.pop(backend, None)

    @property
    def status(self) -> WorkerStatus:
        return WorkerStatus(self.id, self.process.pid, self.state, self.stats, self.is_old)

    def note_drained(self, backend: str, epoch: int) -> None:
        self.drained[backend] = epoch
        while len(self.drained) > REMEMBERED_DRAINS:
            del self.drained[next(iter(self.drained))]

    def is_drained(self, backend: str, epoch: int) -> bool:
        """No lease on the backend is left, as of a table of at least `epoch`."""
        never_had = self.born if backend not in self.took else 0
        return max(self.drained.get(backend, 0), never_had) >= epoch
