"""One supervised backend: its life is one task. Spawn, probe, watch; on a crash back off and spawn again.

Knows nothing of pools, tables or reloads; the fleet hears of every change through `on_change`.
"""

import random
import signal
from dataclasses import dataclass, field

import trio

from lbproxy.model import BackendId, Generation, State
from lbproxy.policy.backoff import crashes_in_row, delay_s, gives_up
from lbproxy.policy.lifecycle import Event, IllegalTransition, spawned
from lbproxy.settings import PoolSettings
from lbproxy.supervise.command import CannotStart, order_for, user_to_become
from lbproxy.supervise.hearing import Hearing
from lbproxy.supervise.holder import Trouble, listening, listens_on_path, trouble_with, where_it_listens
from lbproxy.supervise.member import Member, NotReady
from lbproxy.supervise.place import Place
from lbproxy.supervise.ports import NoFreePort, is_free
from lbproxy.supervise.probe import Answer, probe
from lbproxy.supervise.process import Child, how_it_ended
from lbproxy.supervise.services import Services
from lbproxy.supervise.session import marked, members, signal_name
from lbproxy.supervise.target import FixedTarget
from lbproxy.telemetry.events import (
    BackendExited,
    BackendFailed,
    BackendReady,
    BackendRecycled,
    BackendStarting,
    BackendStopped,
)

SHOWN_LINES = 20
RECYCLED_SOON_S = 1.0  # a backend that ends by itself lives at most once in this time
PORT_TRIES = 3  # in a row: a taken port is not the backend's fault, but it must not become a loop


@dataclass(slots=True)
class Life:
    """From one spawn to one death."""

    began: float
    first_line: int  # number of the newest line before it
    ending: trio.Event = field(default_factory=trio.Event)  # somebody wants its end
    pid: int | None = None
    code: int | None = None
    why: str | None = None  # it never came to life, or we ended it; None: it died by itself
    late: bool = False  # not ready in time
    port_taken: bool = False
    patient_until: float = 0.0  # until then the rest of its session may leave by itself
    ready_s: float | None = None  # how long it was ready; None: never
    left_behind: tuple[int, ...] = ()  # pids that went on when the leader ended before it was ready

    @property
    def how(self) -> str:
        if self.why is not None or self.code is None:
            return self.why or "unknown"
        return how_it_ended(self.code)

    @property
    def hint(self) -> str:
        """What an exit code 0 before it was ready means: the end of a message."""
        if self.code != 0 or self.ready_s is not None or self.why is not None:
            return ""
        if self.left_behind:
            return f" (it went into the background as pid {self.left_behind[0]}: keep it in the foreground)"
        return " (a backend has to stay: keep it in the foreground)"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows from a death."""

    event: Event
    restart_in_s: float | None


class Supervised(Member):
    def __init__(
        self,
        id: BackendId,
        generation: Generation,
        services: Services,
        *,
        reload: str | None = None,
        trial: bool | None = None,
    ) -> None:
        super().__init__(id, generation, services, reload=reload, trial=trial)
        self._life: Life | None = None
        self._child: Child | None = None
        self._killed = False
        self._retried = False
        self._port_tries = 0
        self._row = 0  # crashes in a row
        self._crashes: list[float] = []

    async def run(self) -> None:
        self._began = True
        try:
            while not self._stop.is_set():
                verdict = await self._live_once()
                if verdict is None or (verdict.event is Event.DIED and verdict.restart_in_s is None):
                    break
                await self._wait_restart(verdict)
        finally:
            self._services.outputs.retire(self.id)
            self._ended.set()
            self._tell()

    def kill(self) -> None:
        self._killed = True
        self._want_stop()
        if self._child is not None:
            self._child.signal(signal.SIGKILL)

    # one life

    async def _live_once(self) -> Verdict | None:
        """None: it was stopped, as somebody wanted."""
        life = self._life = Life(trio.current_time(), self.output.newest)
        self._forget_health()
        verdict = None
        try:
            verdict = await self._live(life)
        except (CannotStart, NoFreePort, OSError) as exc:
            life.why = str(exc)
        except Exception as exc:  # a mistake of ours must not end control
            life.why = f"lbproxy could not supervise it: {exc!r}"
        if self._stop.is_set():
            self._say_stopped(life)
            return None
        if verdict is None:
            verdict = self._decide(life)
            self._become(verdict.event)
        self._say_died(life, verdict)
        return verdict

    async def _live(self, life: Life) -> Verdict | None:
        """Spawn it and be with it until nothing of it is left. The verdict, if it was ready when it died."""
        user = user_to_become(self.generation.settings.user)
        place = self._services.places.take(self.generation.settings.bind, self.id.name, user)
        try:
            order = order_for(self.id, self.generation, place, user)
            child = await Child.spawn(order, self._services.children, self._services.guard)
            place.close_listener()
            async with trio.open_nursery() as listening:
                try:
                    outputs = self._services.outputs
                    hearing = Hearing(self.id, self.output, self._emit, per_s=lambda: outputs.logged_per_s)
                    listening.start_soon(child.hear, hearing)
                    verdict = await self._attend(life, child, place)
                    await child.wait_rest_gone(life.patient_until - trio.current_time())
                    return verdict
                finally:
                    life.code = await child.bury()
                    self._child = None
                    listening.cancel_scope.cancel()
        finally:
            self._services.places.give_back(place)
            if life.ready_s is None and place.port is not None and not is_free(place.port, reuse=True):
                life.port_taken = True

    async def _attend(self, life: Life, child: Child, place: Place) -> Verdict | None:
        self._child, life.pid = child, child.pid
        self._set(spawned(self.backend, place.address, child.pid))
        self._emit(BackendStarting(self.id.pool, str(self.id), child.pid, str(place.address), self.reload))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, life, child, place)
            nursery.start_soon(self._end, life, child)
            await child.wait_dead()
            nursery.cancel_scope.cancel()
        life.code = child.code()
        if self._ready_since is None:
            if life.code == 0 and not self._stop.is_set():
                life.left_behind = await trio.to_thread.run_sync(_others, child.pid, child.mark)
            return None
        # At once: a dead backend must leave the table before its last words are read.
        life.ready_s = trio.current_time() - self._ready_since
        if self._stop.is_set():
            return None
        verdict = self._decide(life)
        self._become(verdict.event)
        return verdict

    async def _watch(self, life: Life, child: Child, place: Place) -> None:
        if await self._become_ready_in_time(life, child, place):
            await self._keep_probing(place.address)
        elif life.why is not None:
            life.ending.set()

    async def _become_ready_in_time(self, life: Life, child: Child, place: Place) -> bool:
        limit_s = self.settings.health.start_timeout_s
        with trio.move_on_after(limit_s) as limit:
            while True:
                answer = await self._ask_whether_ready(place)
                self._said = answer.said
                if answer.passed:
                    trouble = await self._trouble_with(place, child)
                    if trouble is None:
                        break
                    self._said = trouble.text
                    if trouble.stranger:
                        life.why, life.port_taken = trouble.text, True
                        return False
                await trio.sleep(self._pause_s())
        if limit.cancelled_caught:
            places = await trio.to_thread.run_sync(where_it_listens, child.pid, child.mark)
            life.why, life.late = f"not ready within {limit_s:g}s: {self._said}{_elsewhere(place, places)}", True
            if self._trial:
                self._fail(life.why, self._tail())  # at once: its end may take as long as stop_timeout
        elif self.backend.state is State.STARTING and child.is_alive():
            after_s = round(trio.current_time() - life.began, 3)
            self._emit(BackendReady(self.id.pool, str(self.id), after_s, self.reload))
            self._port_tries = 0
            self._become_ready()
            return True
        return False

    async def _ask_whether_ready(self, place: Place) -> Answer:
        """The answer of a probe; without active probes, whether somebody listens (a connect would be a probe)."""
        if self.settings.health.active:
            return await probe(place.address, self.settings.health)
        if place.address.path is not None:
            listens = await trio.to_thread.run_sync(listens_on_path, place.address.path)
        else:
            listens = bool(await trio.to_thread.run_sync(listening, place.address.port))
        return Answer(listens, "it listens" if listens else f"nothing listens on {place.address}")

    async def _trouble_with(self, place: Place, child: Child) -> Trouble | None:
        if self.generation.settings.bind != "tcp":
            return None  # a private directory, or a socket that we made: nobody else can answer there
        assert place.port is not None
        return await trio.to_thread.run_sync(trouble_with, place.port, child.pid, child.mark)

    async def _end(self, life: Life, child: Child) -> None:
        """When its end is wanted: the stop signal to all of its process group, and KILL after the time it is given."""
        await life.ending.wait()
        if not self._killed:
            restart = self.settings.restart
            child.signal(restart.stop_signal)
            life.patient_until = trio.current_time() + restart.stop_timeout_s
            await trio.sleep(restart.stop_timeout_s)
        child.signal(signal.SIGKILL)

    def _want_stop(self) -> None:
        super()._want_stop()
        if self._life is not None:
            self._life.ending.set()

    # what follows from its end

    def _decide(self, life: Life) -> Verdict:
        if self.backend.state is State.DRAINING:
            return Verdict(Event.DIED, None)
        if life.code == 0 and life.ready_s is not None and life.why is None and not life.ending.is_set():
            lived_s = trio.current_time() - life.began
            if lived_s >= RECYCLED_SOON_S or not self._trial:
                return self._recycle(lived_s)
        if life.ready_s is None and life.port_taken and self._port_tries < PORT_TRIES:
            self._port_tries += 1
            return Verdict(Event.RETRIED, 0.0)
        if self._trial:
            if self._retried or life.late or life.pid is None:
                return Verdict(Event.GAVE_UP, None)
            self._retried = True
            return Verdict(Event.RETRIED, 0.0)
        now, restart = trio.current_time(), self.settings.restart
        self._crashes = [time for time in self._crashes if time >= now - restart.give_up_within_s] + [now]
        self._row = crashes_in_row(self._row, life.ready_s or 0.0)
        if gives_up(self._crashes, now, restart.give_up_crashes, restart.give_up_within_s):
            return Verdict(Event.GAVE_UP, None)
        pause_s = delay_s(self._row, restart.backoff_first_s, restart.backoff_max_s, random.random())
        return Verdict(Event.DIED, pause_s)

    def _recycle(self, lived_s: float) -> Verdict:
        """A wanted end: it does not count towards `give_up`, and no reload rolls back because of it.

        A life that lasted less than RECYCLED_SOON_S is followed by a pause, so that there is at most one life in that
        time. A pause that doubles, as after a crash, would leave a pool with few requests per life without backends.
        """
        self.recycled += 1
        return Verdict(Event.RECYCLED, max(0.0, RECYCLED_SOON_S - lived_s))

    async def _wait_restart(self, verdict: Verdict) -> None:
        if verdict.restart_in_s is None:
            await self._stop.wait()  # failed: until somebody takes it away
            return
        with trio.move_on_after(verdict.restart_in_s):
            await self._stop.wait()
        if self.backend.state is State.BACKOFF:
            self._become(Event.RESTARTED)

    def _say_died(self, life: Life, verdict: Verdict) -> None:
        pool, name, output = self.id.pool, str(self.id), self._tail()
        if verdict.event is Event.RECYCLED:
            assert life.pid is not None
            assert verdict.restart_in_s is not None
            lived_s, pause_s = round(trio.current_time() - life.began, 3), round(verdict.restart_in_s, 3)
            self._emit(BackendRecycled(pool, name, life.pid, lived_s, pause_s, self.reload))
            self._tell()
            return
        restart_in_s = None if verdict.restart_in_s is None else round(verdict.restart_in_s, 3)
        self._emit(BackendExited(pool, name, life.pid, life.how + life.hint, restart_in_s, output, self.reload))
        if self._trial and verdict.event is Event.GAVE_UP:
            if not life.late:
                self._fail(_reason(life, self._retried), output)
            return
        if verdict.event is Event.GAVE_UP:
            restart = self.settings.restart
            self._emit(BackendFailed(pool, name, len(self._crashes), restart.give_up_within_s))
        if life.ready_s is None and verdict.event is not Event.RETRIED:
            self._failure = NotReady(_reason(life, retried=False), output)
        self._tell()

    def _say_stopped(self, life: Life) -> None:
        if life.code is None:
            return  # it was not running
        self._how = f"exit code {life.code}" if life.code >= 0 else signal_name(-life.code).removeprefix("SIG")
        self._emit(BackendStopped(self.id.pool, str(self.id), self._how, self.reload))

    def _tail(self) -> tuple[str, ...]:
        since = self._life.first_line if self._life is not None else 0
        return tuple(line.text for line in self.output.last(SHOWN_LINES, since=since))


def _others(leader: int, mark: str) -> tuple[int, ...]:
    """The live processes that a dead leader has started."""
    return tuple(sorted({*members((leader,)), *marked(mark)} - {leader}))


def _elsewhere(place: Place, places: list[str]) -> str:
    """Where the backend does listen, if not where it should: the end of a message."""
    if not places or str(place.address) in places:
        return ""
    return f" (it listens on {', '.join(places[:4])}, not on {place.address})"


def _reason(life: Life, retried: bool) -> str:
    """Why it is not ready, in one line."""
    if life.why is not None:
        return life.why
    when = "ready" if life.ready_s is None else "proved"
    return f"{life.how} before it was {when}{', twice' if retried else ''}{life.hint}"


__all__ = ["FixedTarget", "IllegalTransition", "NotReady", "PoolSettings", "Services", "Supervised"]
