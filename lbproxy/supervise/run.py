"""One run of a backend's command: what happened in it, and the words for its end. Knows no task and no state table."""

from dataclasses import dataclass, field

import trio

from lbproxy.policy.lifecycle import LifecycleEvent
from lbproxy.supervise.handed_on import HandedRun, handed_time, taken_time
from lbproxy.supervise.process import how_it_ended
from lbproxy.supervise.session import signal_name


@dataclass(slots=True)
class Run:
    """One run of the command, from the spawn to the death of its process."""

    began: float
    first_line: int  # number of the newest line of output before this run
    ending: trio.Event = field(default_factory=trio.Event)  # set when the process is to be ended
    pid: int | None = None
    code: int | None = None
    killed_because: str | None = None  # why lbproxy sent KILL
    why: str | None = None  # why it could not start, or why lbproxy ended it; None: it died by itself
    late: bool = False  # not ready in time
    port_taken: bool = False
    patient_until: float = 0.0  # until then the rest of the session may exit by itself
    ready_s: float | None = None  # how long the backend was ready; None: never
    left_behind: tuple[int, ...] = ()  # processes still running when the leader exited before it was ready

    def hand_on(self) -> HandedRun:
        began_at = handed_time(self.began)
        return HandedRun(began_at, self.first_line, self.pid, self.code, self.why, self.ready_s, self.left_behind)

    @classmethod
    def take_over(cls, handed: HandedRun) -> "Run":
        run = cls(taken_time(handed.began_at), handed.first_line, pid=handed.pid, code=handed.code, why=handed.why)
        run.ready_s, run.left_behind = handed.ready_s, handed.left_behind
        return run

    @property
    def how(self) -> str:
        if self.why is not None or self.code is None:
            return self.why or "unknown"
        return how_it_ended(self.code)

    @property
    def hint(self) -> str:
        """The end of a message about an exit code 0 before the backend was ready."""
        if self.code != 0 or self.ready_s is not None or self.why is not None:
            return ""
        if self.left_behind:
            return f" (it went into the background as pid {self.left_behind[0]}: keep it in the foreground)"
        return " (a backend has to stay: keep it in the foreground)"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The consequence of a death: the event for the state table, and the pause before the next run."""

    event: LifecycleEvent
    restart_in_s: float | None


def short_name(number: int) -> str:
    """`TERM`, as in the configuration."""
    return signal_name(number).removeprefix("SIG")


def reason(run: Run, retried: bool) -> str:
    """Why the backend is not ready, in one line."""
    if run.why is not None:
        return run.why
    when = "ready" if run.ready_s is None else "proved"
    return f"{run.how} before it was {when}{', twice' if retried else ''}{run.hint}"
