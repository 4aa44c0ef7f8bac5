"""What one control hands on to the next over an exec, of processes: values that stand in a JSON document.

A field whose name ends in `_fd` is a descriptor, which stays open over the exec (-1: there is none). A time (`_at`) is
a reading of the monotonic clock, which goes on over an exec; Trio's own clock begins anew.
"""

import time
from dataclasses import dataclass

import trio

from lbproxy.address import Address
from lbproxy.model import State


def handed_time(at: float) -> float:
    """A time of Trio's clock, for the document."""
    return time.monotonic() + at - trio.current_time()


def taken_time(at: float) -> float:
    """A time of the document, on Trio's clock."""
    return trio.current_time() + at - time.monotonic()


@dataclass(frozen=True, slots=True)
class HandedDirectory:
    path: str
    lock_fd: int


@dataclass(frozen=True, slots=True)
class HandedGuard:
    pid: int
    pipe_fd: int
    mark: str
    next_number: int
    groups: tuple[int, ...]
    unsent: str  # hexadecimal: lines that the pipe had no room for, perhaps from the middle of one on


@dataclass(frozen=True, slots=True)
class HandedEndpoint:
    address: Address
    port: int | None
    directory: str | None
    is_others: bool = False


@dataclass(frozen=True, slots=True)
class HandedProcess:
    pid: int
    mark: str
    output_fd: int  # -1: its output has ended
    cut_line: str  # hexadecimal: the beginning of a line of output
    endpoint: HandedEndpoint


@dataclass(frozen=True, slots=True)
class HandedRun:
    """The run of a command that goes on, or the last one."""

    began_at: float
    first_line: int
    pid: int | None
    code: int | None
    why: str | None
    ready_s: float | None
    left_behind: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class HandedLine:
    number: int
    time: float
    line: str  # hexadecimal


@dataclass(frozen=True, slots=True)
class HandedHealth:
    healthy: bool
    row: int
    passing_since_at: float | None
    passing_until_at: float
    ready_since_at: float | None
    first_ready_at: float | None
    last_probe: str
    doubted: bool


@dataclass(frozen=True, slots=True)
class HandedBackend:
    """One runner. `process` is None for a fixed address, and while no process runs."""

    state: State
    since_at: float
    address: Address | None
    pid: int | None
    restarts: int
    recycled: int
    health: HandedHealth
    failure: str | None
    lines: tuple[HandedLine, ...]
    newest_line: int
    process: HandedProcess | None = None
    run: HandedRun | None = None
    crashes_at: tuple[float, ...] = ()
    crashes_in_row: int = 0
    restart_at: float = 0.0


@dataclass(frozen=True, slots=True)
class HandedResources:
    guard: HandedGuard
    sockets_directory: HandedDirectory | None
    next_socket_number: int
