"""One worker process as control sees it: the record that workers.py keeps, and what `status` shows of it."""

from dataclasses import dataclass, field

import trio

from lbproxy.certificates.certificate_set import CertificateSet
from lbproxy.link.channel import Channel
from lbproxy.link.messages import Stats
from lbproxy.model import ListenerView


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    id: int
    pid: int
    state: str  # starting | serving | stopping
    stats: Stats  # its newest answer


@dataclass(slots=True, eq=False)
class WorkerProcess:
    """One worker process. A respawn makes a new one."""

    id: int
    process: trio.Process
    channel: Channel
    state: str = "starting"
    born: int = 0  # epoch of its first table: it never had a lease on a backend that left before
    applied: int = 0
    holds: set[int] = field(default_factory=set)  # keys of the listeners in the last table that it was sent
    drained: dict[str, int] = field(default_factory=dict)
    stats: Stats = field(default_factory=lambda: Stats(0, 0, 0, {}))
    certificates: dict[int, CertificateSet] = field(default_factory=dict)  # that it was sent, by the listener's key
    unanswered: dict[int, tuple[ListenerView, CertificateSet]] = field(default_factory=dict)  # by serial
    asked: int = 0
    silent: trio.Event = field(default_factory=trio.Event)  # its link has ended, and every message is read
