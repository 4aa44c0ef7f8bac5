"""A hook of a reload: one command beside the backends, with a time limit, whose output is shown as a backend's is.

Runs in a generation's directory and environment, as the pool's user, in a session of its own; nothing of it is left
when it is over. Knows no reload.
"""

import os
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import trio

from lbproxy.model import Generation
from lbproxy.supervise.command import CannotStart, Order, find_program, hook_environment, user_to_become
from lbproxy.supervise.output import LineLimit, text_of
from lbproxy.supervise.process import Child, how_it_ended
from lbproxy.supervise.resources import Resources
from lbproxy.telemetry.events import BackendOutput, Notice
from lbproxy.telemetry.words import count

SHOWN_LINES = 20
TERM_S = 1.0  # between TERM and KILL, when its time is over
_REPORT = "LBPROXY_REPORT"


@dataclass(frozen=True, slots=True)
class Hook:
    name: str  # before | after
    command: tuple[str, ...]
    generation: Generation
    limit_s: float
    env: Mapping[str, str] = field(default_factory=dict)  # further variables
    report: bytes | None = None  # what it finds in the file that LBPROXY_REPORT names


@dataclass(frozen=True, slots=True)
class Ended:
    """`why`: None if it ended with exit code 0. `output`: its last lines."""

    why: str | None
    output: tuple[str, ...] = ()


async def run_hook(hook: Hook, resources: Resources) -> Ended:
    memory = _memory(hook.report) if hook.report is not None else None
    try:
        child = await Child.spawn(_order(hook, memory), resources.children, resources.guard)
    except CannotStart as exc:
        return Ended(str(exc))
    finally:
        if memory is not None:
            os.close(memory)
    lines = _Lines(f"{hook.generation.settings.name}.{hook.name}", resources)
    code = await child.finish(lines, hook.limit_s, term_s=TERM_S)
    if code is None:
        return Ended(f"not over within {hook.limit_s:g}s", lines.last)
    return Ended(None if code == 0 else how_it_ended(code), lines.last)


def _order(hook: Hook, memory: int | None) -> Order:
    """Raises CannotStart."""
    generation = hook.generation
    user = user_to_become(generation.settings.user)
    env = {**hook_environment(generation, user), **hook.env}
    if memory is not None:
        env[_REPORT] = f"/proc/self/fd/{memory}"
    if not os.path.isdir(generation.directory):
        raise CannotStart(f"directory is gone: {generation.directory}")
    program = find_program(hook.command[0], generation.directory, env.get("PATH", os.defpath))
    return Order((program, *hook.command[1:]), env, generation.directory, user, memory)


def _memory(report: bytes) -> int:
    """A descriptor of a file without a name, with this content."""
    fd = os.memfd_create("report", 0)
    os.write(fd, report)
    os.lseek(fd, 0, os.SEEK_SET)
    os.fchmod(fd, 0o444)
    return fd


class _Lines:
    """Where its output goes: the log, which takes so many lines a second, and the last lines for the verdict."""

    def __init__(self, name: str, resources: Resources) -> None:
        self._name = name
        self._emit = resources.emit
        self._last: deque[bytes] = deque(maxlen=SHOWN_LINES)
        self._limit = LineLimit(lambda: resources.outputs.logged_per_s)

    @property
    def report_at(self) -> float:
        return self._limit.report_at

    @property
    def last(self) -> tuple[str, ...]:
        return tuple(map(text_of, self._last))

    def take(self, lines: list[bytes]) -> None:
        self.report()
        self._last.extend(lines)
        for line in self._limit.take(lines):
            self._emit(BackendOutput(self._name, text_of(line)))

    def report(self, *, over: bool = False) -> None:
        """Emit how many lines were left out of the log, as for a backend."""
        left_out = self._limit.next_second(float("inf") if over else trio.current_time())
        if left_out:
            self._emit(Notice(f"{self._name} wrote {count(left_out, 'more line')} than the log takes in a second"))
