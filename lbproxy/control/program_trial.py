"""Run the installed program once as a trial, beside the running one, and read what it says.

Knows a command and its output. trial.py is what the other process does.
"""

import json
import os
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lbproxy.errors import LbproxyError
from lbproxy.supervise.command import CannotStart, Order
from lbproxy.supervise.output import text_of
from lbproxy.supervise.process import Child, how_it_ended
from lbproxy.supervise.resources import Resources

SHOWN_LINES = 20
TRIAL_S = 60.0  # unless the command says --timeout


class TrialFailed(LbproxyError):
    """The program would not take over. `output`: its last lines."""

    def __init__(self, why: str, output: tuple[str, ...] = ()) -> None:
        super().__init__(why)
        self.why = why
        self.output = output


@dataclass(frozen=True, slots=True)
class Trial:
    words: tuple[str, ...]
    environ: Mapping[str, str]
    fds: tuple[int, ...]  # that the process inherits
    limit_s: float = TRIAL_S


async def run_trial(trial: Trial, resources: Resources) -> dict[str, Any]:
    """What the program says that it would take over. Raises TrialFailed. Nothing of it is left, whatever happens."""
    order = Order(trial.words, trial.environ, os.curdir, None, fds=trial.fds)
    try:
        child = await Child.spawn(order, resources.children, resources.guard)
    except CannotStart as exc:
        raise TrialFailed(str(exc)) from None
    lines = _Lines()
    code = await child.finish(lines, trial.limit_s)
    if code is None:
        raise TrialFailed(f"the trial of the installed program was not over within {trial.limit_s:g}s", lines.last)
    if code != 0:
        raise TrialFailed(f"the installed program failed its trial: {how_it_ended(code)}", lines.last)
    for line in reversed(lines.last):
        try:
            said = json.loads(line)
        except ValueError:
            continue
        if isinstance(said, dict) and "version" in said:
            return said
    raise TrialFailed("the installed program knows no trial: is it older than this one?", lines.last)


class _Lines:
    """The last lines of its output; see TakesLines."""

    def __init__(self) -> None:
        self._last: deque[bytes] = deque(maxlen=SHOWN_LINES)

    @property
    def report_at(self) -> float:
        return float("inf")

    @property
    def last(self) -> tuple[str, ...]:
        return tuple(map(text_of, self._last))

    def take(self, lines: list[bytes]) -> None:
        self._last.extend(lines)

    def report(self, *, over: bool = False) -> None:
        """Nothing is left out."""
