"""A pool as control holds it: its members, its generation, and counts that never go backwards.

Knows what belongs in the table. Starts, stops and publishes nothing: fleet.py does.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import trio

from lbproxy.control.ejection import Ejection, Ejections
from lbproxy.control.handed_on import HandedMember, HandedPool
from lbproxy.control.names import Names
from lbproxy.link.grid import Counter, Grid
from lbproxy.model import Backend, BackendId, BackendSpec, BackendView, Generation, LeaseKind, PoolView, State
from lbproxy.policy import health
from lbproxy.settings import PoolSettings, TargetTls
from lbproxy.supervise.handed_on import handed_time, taken_time
from lbproxy.supervise.runner import Runner
from lbproxy.telemetry.events import BackendExited

TOTALS = (Counter.REQUESTS, Counter.FAILED, Counter.CUT, Counter.WEBSOCKETS_CLOSED)
_LIVE = (State.READY, State.UNHEALTHY, State.DRAINING)


class Member:
    """A backend and its place in the pool."""

    def __init__(self, spec: BackendSpec, runner: Runner, cell: int) -> None:
        self.spec = spec
        self.runner = runner
        self.cell = cell  # its column in the grid
        self.published = False  # may be in the table as soon as it can serve
        self.held = False  # drained by command: it is not published until it is undrained
        self.in_table = False
        self.left_epoch = 0  # epoch of the first table without it; 0: it was never in a table
        self.started_at: float | None = None  # of the process that runs
        self.died = trio.Event()  # by itself, after it was proved
        self.last_exit: BackendExited | None = None
        self.exit_said = trio.Event()
        self.gone = trio.Event()  # its process is stopped for good
        self._pid: int | None = None
        self._live = False

    @property
    def backend(self) -> Backend:
        return self.runner.backend

    def hand_on(self, generation: int, drain: Any) -> HandedMember:
        """`generation`: its place in the pool's list. `drain`: the command that drains it still."""
        started_at = handed_time(self.started_at) if self.started_at is not None else None
        return HandedMember(
            *(self.spec.slot, generation, self.cell, self.published, self.held, self.in_table, self.left_epoch),
            started_at=started_at,
            runner=self.runner.hand_on(),
            drain=drain,
        )

    def take_over(self, handed: HandedMember) -> None:
        self.published, self.held = handed.published, handed.held
        self.in_table, self.left_epoch = handed.in_table, handed.left_epoch
        self.runner.take_over(handed.runner)
        self.started_at = taken_time(handed.started_at) if handed.started_at is not None else None
        self._pid, self._live = self.backend.pid, self.backend.state in _LIVE

    def see_change(self) -> None:
        """Note a new process, and the death of one that was live."""
        backend = self.backend
        if backend.pid != self._pid:
            self._pid, self.started_at = backend.pid, trio.current_time()
        was_live, self._live = self._live, backend.state in _LIVE
        if was_live and not self._live and backend.state in (State.BACKOFF, State.FAILED):
            self.died.set()

    def begin_watch(self) -> None:
        """The member is proved: forget deaths on trial."""
        self.died, self.exit_said = trio.Event(), trio.Event()

    def see_exit(self, event: BackendExited) -> None:
        self.last_exit = event
        self.exit_said.set()


@dataclass(frozen=True, slots=True)
class Pause:
    """Requests wait, `max_wait_s` each (None: as the queue says); with a `page` they are answered with it and 503."""

    max_wait_s: float | None
    page: str | None


@dataclass(frozen=True, slots=True)
class RunningReload:
    """What `status` tells of the change that runs."""

    id: str
    verb: str  # reload | rollback | scale | restart | recycle
    step: str  # rolling | rolling back | paused
    generation: int
    why: str | None = None


def no_token(spec: BackendSpec) -> str:
    """The token of a backend where no pool is sticky."""
    del spec
    return ""


class Pool:
    def __init__(
        self,
        settings: PoolSettings,
        generation: Generation,
        grid: Grid,
        cell: int,
        *,
        names: Names | None = None,
        token_of: Callable[[BackendSpec], str] = no_token,
    ) -> None:
        """`token_of`: for a sticky cookie."""
        self.name = settings.name
        self.names = names if names is not None else Names()
        self.settings = settings
        self.generation = generation  # of the backends that serve or will serve
        self.members: list[Member] = []
        self.cell = cell
        self.reloading = False
        self.closing = False  # it has left the file, or never served
        self.running_reload: RunningReload | None = None
        self.pause: Pause | None = None
        self.differs: tuple[str, ...] = ()  # keys of the file that are not as what runs: after a rollback or a scale
        self.heading = 0  # the generation that a rollout moves to; 0: none runs
        self._ejections = Ejections()
        self._token_of = token_of
        self._grid = grid
        self._cells: dict[int, str | None] = {cell: None}  # with the name of the slot; None: the pool's own
        self._remembered = dict.fromkeys(TOTALS, 0)
        self._remembered_requests: dict[str, int] = {}  # by slot

    @property
    def size(self) -> int:
        """How many backends it should have."""
        return self.names.size(self.settings)

    # Members

    def add(self, member: Member) -> None:
        self.members.append(member)
        self._cells[member.cell] = member.spec.id.name

    def remember(self, cell: int) -> None:
        """Add the totals of a cell that is given back to the pool's."""
        slot = self._cells.pop(cell, None)
        for counter in TOTALS:
            self._remembered[counter] += self._grid.sum(cell, counter)
        if slot is not None:
            requests = self._grid.sum(cell, Counter.REQUESTS)
            self._remembered_requests[slot] = self._remembered_requests.get(slot, 0) + requests

    def apply(self, settings: PoolSettings, generation: Generation) -> None:
        """Apply the settings that need no restart, also in the members."""
        self.settings = settings
        self.generation = generation
        for member in self.members:
            made_by_it = member.spec.generation.number == generation.number
            # The spec of a fixed address keeps the targets of the generation that made it.
            if made_by_it and settings.command is not None:
                member.spec = replace(member.spec, generation=generation)
            member.runner.update(settings)

    def begin_reload(self, reload: str) -> None:
        """Events of the members belong to this reload from now on."""
        self.reloading = True
        for member in self.members:
            member.runner.reload = reload

    def end_reload(self) -> None:
        self.reloading = False
        for member in self.members:
            member.runner.reload = None

    # Over an exec

    def hand_on(self, drain_of: Callable[[Member], Any]) -> HandedPool:
        generations = list(dict.fromkeys([self.generation, *(member.spec.generation for member in self.members)]))
        return HandedPool(
            self.name,
            self.settings,
            0,
            tuple(generations),
            self.cell,
            tuple(
                member.hand_on(generations.index(member.spec.generation), drain_of(member)) for member in self.members
            ),
            self.differs,
            self.pause is not None,
            self.pause.max_wait_s if self.pause is not None else None,
            self.pause.page if self.pause is not None else None,
            {counter.name: number for counter, number in self._remembered.items()},
            dict(self._remembered_requests),
        )

    def take_over(self, handed: HandedPool) -> None:
        """All but the members."""
        self.differs = handed.differs
        self.pause = Pause(handed.pause_max_wait_s, handed.pause_page) if handed.is_paused else None
        for counter in TOTALS:
            self._remembered[counter] = handed.totals.get(counter.name, 0)
        self._remembered_requests = dict(handed.requests_by_slot)

    # The table

    def serving(self) -> list[Member]:
        """Published members that are ready; all live unhealthy ones if none is. Dead and draining ones never."""
        eligible = [member for member in self.members if member.published and member.backend.address is not None]
        fit = set(health.servable((member.backend.id, member.backend.state) for member in eligible))
        return [member for member in eligible if member.backend.id in fit]

    def note_errors(self, id: BackendId, errors: tuple[int, str], now: float) -> Ejection | str | None:
        """See Ejections.note."""
        passive = self.settings.health.passive
        return self._ejections.note(id, errors, passive, self._fit(), now) if passive is not None else None

    def settle_ejections(self, now: float) -> list[tuple[BackendId, str]]:
        """See Ejections.settle."""
        if self._ejections.is_empty:
            return []
        return self._ejections.settle(self.settings.health.passive, self._fit(), now)

    @property
    def next_return(self) -> float:
        """When an ejected backend comes back: a reading of Trio's clock."""
        return self._ejections.next_end

    def ejection_of(self, member: Member) -> Ejection | None:
        return self._ejections.find(member.backend.id)

    def why(self, member: Member, now: float) -> str | None:
        """Why it does not serve, in one line; None if it does."""
        ejection = self.ejection_of(member)
        return ejection.why_now(now) if ejection is not None else member.runner.why

    def _fit(self) -> set[BackendId]:
        return {member.backend.id for member in self.serving() if member.backend.state is State.READY}

    def view(self) -> PoolView:
        send_proxy = self.settings.send_proxy.removeprefix("off")
        is_sticky = self.settings.sticky is not None
        serving = [
            BackendView(
                *(member.backend.id, member.backend.address, member.cell),
                send_proxy=send_proxy,
                token=self._token_of(member.spec) if is_sticky else "",
                tls=_tls_of(member),
                is_http2=member.spec.generation.settings.protocol != "http/1.1",
            )
            for member in sorted(self.serving(), key=lambda member: member.backend.id)
            if member.backend.address is not None
        ]
        settings, pause = self.settings, self.pause
        fit = tuple(view for view in serving if self._ejections.find(view.id) is None)
        ejected = tuple(view for view in serving if self._ejections.find(view.id) is not None)
        limits = settings.limits
        if pause is not None and pause.max_wait_s is not None:
            limits = replace(limits, queue_timeout_s=pause.max_wait_s)
        return PoolView(
            name=self.name,
            cell=self.cell,
            backends=() if pause is not None else fit,
            resting=ejected if pause is None else tuple(serving),
            maintenance=pause.page if pause is not None else None,
            # A client that reconnects during a rollout must not get a backend that leaves next. A worker takes any
            # backend when none is of this generation, so with 0 all are alike.
            newest=self.heading,
            balance=settings.balance,
            hash_key=settings.hash_key,
            timeouts=settings.timeouts,
            limits=limits,
            drain=settings.drain,
            retry_attempts=settings.retry_attempts,
            buffer_request_bytes=settings.buffer_request_bytes,
            upgrades=settings.upgrades,
            accept_bare_lf=settings.accept_bare_lf,
            is_hopeless=self.is_hopeless,
            sticky=settings.sticky,
            coming=tuple(self._token_of(one.spec) for one in self.members if is_sticky and is_coming(one)),
            slow_start_s=settings.slow_start_s,
            reports_errors=settings.health.passive is not None,
        )

    @property
    def is_hopeless(self) -> bool:
        """Whether every backend has failed for good: none of them comes back without a reload."""
        states = [member.backend.state for member in self.members]
        return State.FAILED in states and set(states) <= {State.FAILED, State.STOPPING}

    # Counts

    def total(self, counter: Counter) -> int:
        """The sum over all backends that ever were in the pool."""
        return self._remembered[counter] + sum(self._grid.sum(cell, counter) for cell in self._cells)

    def totals(self) -> dict[Counter, int]:
        return {counter: self.total(counter) for counter in TOTALS}

    def served_since(self, before: dict[Counter, int]) -> tuple[int, int, int, int]:
        """By how much the TOTALS have grown: requests, failed, cut, closed WebSockets."""
        requests, failed, cut, closed = (self.total(counter) - before[counter] for counter in TOTALS)
        return requests, failed, cut, closed

    def requests_by_slot(self) -> dict[str, int]:
        """The requests of each slot ("web.3"), whichever generation served them."""
        requests = dict(self._remembered_requests)
        for cell, slot in self._cells.items():
            if slot is not None:
                requests[slot] = requests.get(slot, 0) + self._grid.sum(cell, Counter.REQUESTS)
        return requests

    @property
    def ready(self) -> int:
        return sum(
            member.published and member.backend.state is State.READY and self.ejection_of(member) is None
            for member in self.members
        )

    @property
    def is_degraded(self) -> bool:
        failed = any(member.published and member.backend.state is State.FAILED for member in self.members)
        return failed or self.ready < self.size - self.held

    @property
    def held(self) -> int:
        """How many are drained by command."""
        return sum(member.held for member in self.members)

    def state_of(self, member: Member) -> str:
        """The state that users see: of one that is drained by command `draining`, then `drained`; of an ejected one
        `unhealthy`."""
        if self.ejection_of(member) is not None:
            return str(State.UNHEALTHY)
        if not member.held or member.backend.state not in _LIVE:
            return str(member.backend.state)
        return "draining" if self._grid.sum(member.cell, Counter.LEASES) else "drained"

    def leases(self, member: Member) -> dict[str, int]:
        """The number of leases by kind, without the zeros."""
        counts = {kind: self._grid.sum(member.cell, Counter[kind.name]) for kind in LeaseKind}
        return {str(kind): count for kind, count in counts.items() if count}


def _tls_of(member: Member) -> TargetTls | None:
    """The rules of the generation that made the backend: other rules make another backend (diff.py)."""
    address = member.backend.address
    return member.spec.generation.settings.tls if address is not None and address.secure else None


def is_coming(member: Member) -> bool:
    """Whether it is in its first start. What is started again after a crash may take its time, or never come."""
    backend = member.backend
    return member.published and backend.state is State.STARTING and not backend.restarts and not member.runner.recycled


def lowest_free(taken: Iterable[int], count: int) -> list[int]:
    """The `count` lowest slots, from 1, that are not in `taken`."""
    used, slot = set(taken), 1
    found: list[int] = []
    while len(found) < count:
        if slot not in used:
            found.append(slot)
        slot += 1
    return found
