"""One member of a pool: its record, its health, and those who wait for it. What it is made of is not known here.

ProcessRunner (backend.py) adds a process, AddressRunner (target.py) nothing but the address.
"""

from collections.abc import Callable

import trio

from lbproxy.address import Address
from lbproxy.errors import LbproxyError
from lbproxy.model import Backend, BackendId, Generation, State
from lbproxy.policy.health import Health
from lbproxy.policy.lifecycle import LifecycleEvent, after
from lbproxy.settings import PoolSettings
from lbproxy.supervise.output import OutputRing
from lbproxy.supervise.probe import ProbeResult, probe
from lbproxy.supervise.resources import Resources
from lbproxy.telemetry.events import BackendHealthy, BackendNotReady, BackendProved, BackendUnhealthy

QUICK_S = 0.25  # between probes while starting, being proved, or in doubt
_LIVE = (State.READY, State.UNHEALTHY, State.DRAINING)


class NotReady(LbproxyError):
    """A backend did not become ready, or did not stay so. `output`: its last lines."""

    def __init__(self, why: str, output: tuple[str, ...] = ()) -> None:
        super().__init__(why)
        self.why = why
        self.output = output


def _nothing(member: "Runner") -> None:
    pass


class Runner:
    """Made inside `trio.run`: `backend.since` is on Trio's clock.

    `reload` is the id that the events carry; whoever begins or ends a reload sets it.
    """

    def __init__(
        self,
        id: BackendId,
        generation: Generation,
        resources: Resources,
        *,
        reload: str | None = None,
        trial: bool | None = None,
    ) -> None:
        """`trial` (usually: `reload` is given): a death before it is proved is answered by one more try, then by
        FAILED. Without, a crash is answered by the back-off, whatever the reload."""
        self.id = id
        self.generation = generation
        self.reload = reload
        self.on_change: Callable[[Runner], None] = _nothing
        # A probe passed after `refused`, and the state did not change: workers that skip this backend will use it
        # again with the next table.
        self.on_reachable: Callable[[Runner], None] = _nothing
        self.output: OutputRing = resources.outputs.ring(id)
        self.backend = Backend(id, State.STARTING, since=trio.current_time())
        self.settings = generation.settings
        self._resources = resources
        self._emit = resources.emit
        self._trial = reload is not None if trial is None else trial
        self._health = Health(healthy=True)
        self._good_since: float | None = None  # first of the passes in a row
        self._good_until = 0.0  # newest of them
        self._ready_since: float | None = None  # first ready in this life
        self._first_ready: float | None = None  # in any life
        self._said = "not asked yet"
        self._failure: NotReady | None = None  # of the newest attempt
        self._doubted = False
        self._proving = 0
        self._hurry = trio.Event()
        self._news = trio.Event()
        self._stop = trio.Event()
        self._began = False
        self._ended = trio.Event()
        self._how = "not running"
        self.recycled = 0  # ends by itself with exit code 0, after it was ready

    async def run(self) -> None:
        """Until it is stopped for good. Raises nothing of its own."""
        raise NotImplementedError

    # what others ask and tell

    async def wait_ready(self) -> None:
        """Raises NotReady when the attempt failed, or when it is stopped."""
        while self.backend.state is not State.READY:
            self._raise_failure()
            await self._news.wait()

    async def wait_proved(self, min_ready_s: float) -> None:
        """Ready, and every probe since has passed for `min_ready_s`. Ends the trial. Raises NotReady."""
        began = trio.current_time()
        self._proving += 1
        self._hurry.set()
        try:
            while not self._has_stayed(min_ready_s):
                self._raise_failure()
                self._raise_unproved(min_ready_s)
                await self._news.wait()
        finally:
            self._proving -= 1
        self._trial = False
        self._emit(BackendProved(self.id.pool, str(self.id), round(trio.current_time() - began, 3), self.reload))

    def refused(self) -> None:
        """A worker could not connect: counts like a failed probe, and the next one comes soon."""
        if self.backend.state in _LIVE and self.settings.health.active:  # else no probe would ever take it back
            self._doubted = True
            self._judge(ProbeResult(False, "a worker could not connect"))
            self._hurry.set()

    def drain(self) -> None:
        """READY | UNHEALTHY -> DRAINING. Raises IllegalTransition."""
        self._become(LifecycleEvent.DRAINED)

    def take_back(self) -> None:
        """DRAINING -> READY | UNHEALTHY. Raises IllegalTransition: one that died while draining is STOPPING."""
        self._become(LifecycleEvent.TAKEN_BACK if self._health.healthy else LifecycleEvent.TAKEN_BACK_UNHEALTHY)

    async def stop(self) -> str:
        """Ask it to stop; returns when nothing of it is left: "TERM", "KILL", "exit code 0", "not running".
        In any state, any number of times; also when `run` has not begun, or has returned."""
        self._want_stop()
        await self._ended.wait()
        return self._how

    def kill(self) -> None:
        """As `stop`, at once and without waiting."""
        self._want_stop()

    def update(self, settings: PoolSettings) -> None:
        """What can change while it lives: health and restart. The rest stays that of its generation."""
        self.settings = settings
        self._hurry.set()

    # what the subclasses use

    async def _keep_probing(self, address: Address) -> None:
        while True:
            await self._wait_turn()
            self._judge(await self._ask(address))

    async def _ask(self, address: Address) -> ProbeResult:
        """The answer of a probe; without active probes a backend is well as long as it lives."""
        health = self.settings.health
        return await probe(address, health) if health.active else ProbeResult(True, "not probed")

    async def _wait_turn(self) -> None:
        """Until the next probe is due. What changes the pause on the way counts at once."""
        before = trio.current_time()
        while True:
            with trio.move_on_at(before + self._pause_s()):
                await self._hurry.wait()
                self._hurry = trio.Event()
                continue
            return

    def _pause_s(self) -> float:
        quick = self._proving or self._doubted or self.backend.state is State.STARTING
        return min(QUICK_S, self.settings.health.interval_s) if quick else self.settings.health.interval_s

    def _judge(self, answer: ProbeResult) -> None:
        """Count a probe's answer, and say so when it makes a difference."""
        if answer.passed is None:
            return
        self._said = answer.detail
        self._note_passes(answer.passed)
        health = self.settings.health
        self._health = self._health.after(answer.passed, rise=health.rise, fall=health.fall)
        doubted, self._doubted = self._doubted, self._doubted and not (answer.passed and self._health.healthy)
        state = self.backend.state
        if state is State.READY and not self._health.healthy:
            self._emit(BackendUnhealthy(self.id.pool, str(self.id), answer.detail))
            self._become(LifecycleEvent.FELL)
        elif state is State.UNHEALTHY and self._health.healthy:
            self._emit(BackendHealthy(self.id.pool, str(self.id)))
            self._become(LifecycleEvent.RECOVERED)
        elif doubted and answer.passed and state in _LIVE:
            self.on_reachable(self)
        self._tell()

    def _note_passes(self, passed: bool) -> None:
        self._good_until = trio.current_time()
        if not passed:
            self._good_since = None
        elif self._good_since is None:
            self._good_since = self._good_until

    def _forget_health(self) -> None:
        """For a new life."""
        self._health = Health(healthy=True)
        self._good_since = self._ready_since = None
        self._doubted = False
        self._said = "not asked yet"

    def _become_ready(self) -> None:
        self._note_passes(True)
        self._ready_since = trio.current_time()
        self._first_ready = self._first_ready or self._ready_since
        self._failure = None
        self._become(LifecycleEvent.PASSED)

    def _become(self, event: LifecycleEvent) -> None:
        self._set(after(self.backend, event, now=trio.current_time()))

    def _set(self, backend: Backend) -> None:
        self.backend = backend
        self._tell()
        self.on_change(self)

    def _fail(self, why: str, output: tuple[str, ...] = ()) -> NotReady:
        """On trial this is the end of it."""
        self._failure = NotReady(why, output)
        self._emit(BackendNotReady(self.id.pool, str(self.id), why, output, self.reload))
        self._tell()
        return self._failure

    def _tell(self) -> None:
        """Wake those who wait."""
        self._news.set()
        self._news = trio.Event()

    def _want_stop(self) -> None:
        if not self._stop.is_set():
            self._stop.set()
            if self.backend.state is not State.STOPPING:
                self._become(LifecycleEvent.STOPPED)
        if not self._began:
            self._ended.set()
        self._tell()

    def _has_stayed(self, min_ready_s: float) -> bool:
        since = self._good_since
        return self.backend.state is State.READY and since is not None and self._good_until - since >= min_ready_s

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._ended.is_set() or self.backend.state in (State.DRAINING, State.STOPPING):
            raise NotReady(f"it is {self.backend.state}")

    def _raise_unproved(self, min_ready_s: float) -> None:
        if self.backend.state is State.UNHEALTHY:
            raise self._fail(f"became unhealthy while it was being proved: {self._said}", self._tail())
        limit_s = self.settings.health.start_timeout_s + min_ready_s
        if self._first_ready is not None and trio.current_time() > self._first_ready + limit_s:
            raise self._fail(f"did not stay ready for {min_ready_s:g}s: {self._said}", self._tail())

    def _tail(self) -> tuple[str, ...]:
        """The last lines of this life."""
        return ()
