"""The runner of one backend: its record, its health, and the tasks that wait for a change of both.

Does not know what a backend is made of: ProcessRunner adds a process, AddressRunner only an address.
"""

from collections.abc import Callable

import trio

from lbproxy.address import Address
from lbproxy.errors import LbproxyError
from lbproxy.model import Backend, BackendSpec, State
from lbproxy.policy.health import Health
from lbproxy.policy.lifecycle import LifecycleEvent, after
from lbproxy.settings import PoolSettings
from lbproxy.supervise.handed_on import HandedBackend, HandedHealth, HandedLine, handed_time, taken_time
from lbproxy.supervise.output import OutputRing
from lbproxy.supervise.probe import ProbeResult, probe
from lbproxy.supervise.resources import Resources
from lbproxy.telemetry.events import BackendHealthy, BackendNotReady, BackendProved, BackendUnhealthy
from lbproxy.telemetry.text import seconds

QUICK_S = 0.25  # between probes while a backend starts, is being proved, or is in doubt
_LIVE = (State.READY, State.UNHEALTHY, State.DRAINING)
_NOT_PROBED = "not probed yet"
HANDED_ON = (State.STARTING, State.READY, State.UNHEALTHY, State.BACKOFF, State.FAILED)
HANDED_LINES = 100  # of the output of each backend


class NotReady(LbproxyError):
    """A backend did not become ready, or did not stay ready. `output`: its last lines."""

    def __init__(self, why: str, output: tuple[str, ...] = ()) -> None:
        super().__init__(why)
        self.why = why
        self.output = output


def _ignore(runner: "Runner") -> None:
    pass


def _handed(at: float | None) -> float | None:
    return None if at is None else handed_time(at)


def _taken(at: float | None) -> float | None:
    return None if at is None else taken_time(at)


class Runner:
    """Base of ProcessRunner and AddressRunner. Made inside `trio.run`, because `backend.since` is on Trio's clock.

    `reload` is the id that the events carry. The reload sets it when it begins and clears it when it ends.
    """

    def __init__(
        self, spec: BackendSpec, resources: Resources, *, reload: str | None = None, trial: bool | None = None
    ) -> None:
        """`trial` (default: if `reload` is given): a death before the proof is followed by one more try, then FAILED.

        Without a trial each crash is followed by the back-off, also during a reload.
        """
        self.spec = spec
        self.id = spec.id
        self.generation = spec.generation
        self.reload = reload
        self.on_change: Callable[[Runner], None] = _ignore
        # Called when a probe passes after `refused` and the state stays the same. Workers that skip this backend use it
        # again with the next table.
        self.on_reachable: Callable[[Runner], None] = _ignore
        self.output: OutputRing = resources.outputs.ring(self.id)
        self.backend = Backend(self.id, State.STARTING, since=trio.current_time())
        self.settings = self.generation.settings
        self.recycled = 0  # exits with code 0 after the backend was ready
        self._resources = resources
        self._emit = resources.emit
        self._trial = reload is not None if trial is None else trial
        self._health = Health(healthy=True)
        self._passing_since: float | None = None  # first of the passed probes in a row
        self._passing_until = 0.0  # newest of them
        self._ready_since: float | None = None  # first ready in this run
        self._first_ready: float | None = None  # first ready in any run
        self._last_probe = _NOT_PROBED
        self._failure: NotReady | None = None  # of the newest attempt
        self._doubted = False
        self._proving = 0
        self._probe_soon = trio.Event()
        self._changed = trio.Event()
        self._stop = trio.Event()
        self._began = False
        self._ended = trio.Event()
        self._how_stopped = "not running"

    def __repr__(self) -> str:
        backend = self.backend
        facts = [f"{self.id}", backend.state.name]
        if backend.pid is not None:
            facts.append(f"pid {backend.pid}")
        if backend.address is not None:
            facts.append(str(backend.address))
        facts += [f"restarts {backend.restarts}", self._last_probe]
        if self._trial:
            facts.append("on trial")
        if self._stop.is_set():
            facts.append("ended" if self._ended.is_set() else "told to stop")
        return f"<{type(self).__name__} {', '.join(facts)}>"

    @property
    def why(self) -> str | None:
        """Why the backend does not serve, or what it waits for, in one line for the operator; None if it serves."""
        match self.backend.state:
            case State.STARTING:
                return self._why_starting()
            case State.UNHEALTHY:
                return self._last_probe
            case State.BACKOFF | State.FAILED:
                return self._why_dead()
            case State.STOPPING:
                return self._why_stopping()
        return None

    async def run(self) -> None:
        """Returns when the backend is stopped for good. Raises nothing of its own."""
        raise NotImplementedError

    # Called by control

    async def wait_ready(self) -> None:
        """Raises NotReady when the attempt fails, or when the backend is stopped."""
        while self.backend.state is not State.READY:
            self._raise_failure()
            await self.wait_change()

    async def wait_proved(self, min_ready_s: float) -> None:
        """Returns when the backend is ready and all its probes have passed for `min_ready_s`. Ends the trial.

        Raises NotReady.
        """
        began = trio.current_time()
        self._proving += 1
        self._probe_soon.set()
        try:
            while not self._has_stayed_ready(min_ready_s):
                self._raise_failure()
                self._raise_unproved(min_ready_s)
                await self.wait_change()
        finally:
            self._proving -= 1
        self._trial = False
        self._emit(BackendProved(self.id.pool, str(self.id), round(trio.current_time() - began, 3), self.reload))

    async def wait_change(self) -> None:
        """Returns at the next change of state, result of a probe, failure or stop."""
        await self._changed.wait()

    def refused(self) -> None:
        """Count a worker's failed connect as a failed probe. The next probe comes soon."""
        # Without active probes nothing would ever make the backend healthy again.
        if self.backend.state in _LIVE and self.settings.health.active:
            self._doubted = True
            self._count_probe(ProbeResult(False, "a worker could not connect"))
            self._probe_soon.set()

    def drain(self) -> None:
        """READY | UNHEALTHY -> DRAINING. Raises IllegalTransition."""
        self._become(LifecycleEvent.DRAINED)

    def take_back(self) -> None:
        """DRAINING -> READY | UNHEALTHY. Raises IllegalTransition if the backend died while draining (STOPPING)."""
        self._become(LifecycleEvent.TAKEN_BACK if self._health.healthy else LifecycleEvent.TAKEN_BACK_UNHEALTHY)

    async def stop(self) -> str:
        """Stop the backend; returns when nothing of it is left: "TERM", "KILL", "exit code 0", "not running".

        Works in any state and any number of times, also before `run` begins and after it returns.
        """
        self._request_stop()
        await self._ended.wait()
        return self._how_stopped

    def kill(self, why: str = "") -> None:
        """Stop the backend without grace. Does not wait. `why` is for the operator."""
        del why  # a fixed address is not killed
        self._request_stop()

    def update(self, settings: PoolSettings) -> None:
        """Apply new `health` and `restart` settings. All other settings stay those of the generation."""
        self.settings = settings
        self._probe_soon.set()

    # Over an exec

    @property
    def is_settled(self) -> bool:
        """Whether it can be handed on now: it is not in the middle of a spawn, of an end or of a drain."""
        return self._began and not self._stop.is_set() and self.backend.state in HANDED_ON

    def hand_on(self) -> HandedBackend:
        """Of a runner that is settled."""
        backend, health = self.backend, self._health
        lines = [HandedLine(number, at, line.hex()) for number, at, line in self.output.hand_on(HANDED_LINES)]
        return HandedBackend(
            backend.state,
            handed_time(backend.since),
            backend.address,
            backend.pid,
            backend.restarts,
            self.recycled,
            HandedHealth(
                health.healthy,
                health.row,
                _handed(self._passing_since),
                handed_time(self._passing_until),
                _handed(self._ready_since),
                _handed(self._first_ready),
                self._last_probe,
                self._doubted,
            ),
            self._failure.why if self._failure is not None else None,
            tuple(lines),
            self.output.newest,
        )

    def take_over(self, handed: HandedBackend) -> None:
        """Go on where an earlier program of this control stood. Before `run`."""
        health = handed.health
        self.backend = Backend(
            self.id, handed.state, taken_time(handed.since_at), handed.address, handed.pid, handed.restarts
        )
        self.recycled = handed.recycled
        self._trial = False
        self._health = Health(health.healthy, health.row)
        self._passing_since, self._passing_until = _taken(health.passing_since_at), taken_time(health.passing_until_at)
        self._ready_since, self._first_ready = _taken(health.ready_since_at), _taken(health.first_ready_at)
        self._last_probe, self._doubted = health.last_probe, health.doubted
        self._failure = NotReady(handed.failure) if handed.failure is not None else None
        self.output.restore(
            [(one.number, one.time, bytes.fromhex(one.line)) for one in handed.lines], handed.newest_line
        )

    # Used by the subclasses

    def _why_starting(self) -> str:
        """The last answer of its probe, and how long it may still take."""
        waited_s = trio.current_time() - self.backend.since
        return f"{self._last_probe} ({seconds(waited_s)} of {self.settings.health.start_timeout_s:g}s)"

    def _why_dead(self) -> str | None:
        return self._failure.why if self._failure is not None else None

    def _why_stopping(self) -> str | None:
        return None

    async def _keep_probing(self, address: Address) -> None:
        while True:
            await self._wait_probe_due()
            self._count_probe(await self._probe(address))

    async def _probe(self, address: Address) -> ProbeResult:
        """The result of one probe. Without active probes a backend is healthy as long as it runs."""
        if not self.settings.health.active:
            return ProbeResult(True, "no active probes")
        return await self._ask(address)

    async def _ask(self, address: Address) -> ProbeResult:
        """Probe, and count it."""
        result = await probe(address, self.settings)
        if result.passed is not None:
            self._resources.count_probe(self.id.pool, result.passed)
        return result

    async def _wait_probe_due(self) -> None:
        """Returns when the next probe is due. A change of the pause during the wait applies at once."""
        before = trio.current_time()
        while True:
            with trio.move_on_at(before + self._pause_s()):
                await self._probe_soon.wait()
                self._probe_soon = trio.Event()
                continue
            return

    def _pause_s(self) -> float:
        quick = self._proving or self._doubted or self.backend.state is State.STARTING
        return min(QUICK_S, self.settings.health.interval_s) if quick else self.settings.health.interval_s

    def _count_probe(self, result: ProbeResult) -> None:
        """Count the result of a probe. Change the state and emit an event if it makes a difference."""
        if result.passed is None:
            return
        self._last_probe = result.detail
        self._note_passes(result.passed)
        health = self.settings.health
        self._health = self._health.after(result.passed, rise=health.rise, fall=health.fall)
        doubted, self._doubted = self._doubted, self._doubted and not (result.passed and self._health.healthy)
        state = self.backend.state
        if state is State.READY and not self._health.healthy:
            self._emit(BackendUnhealthy(self.id.pool, str(self.id), result.detail))
            self._become(LifecycleEvent.FELL)
        elif state is State.UNHEALTHY and self._health.healthy:
            self._emit(BackendHealthy(self.id.pool, str(self.id)))
            self._become(LifecycleEvent.RECOVERED)
        elif doubted and result.passed and state in _LIVE:
            self.on_reachable(self)
        self._wake()

    def _note_passes(self, passed: bool) -> None:
        self._passing_until = trio.current_time()
        if not passed:
            self._passing_since = None
        elif self._passing_since is None:
            self._passing_since = self._passing_until

    def _reset_health(self) -> None:
        """Forget the probes of the run before."""
        self._health = Health(healthy=True)
        self._passing_since = self._ready_since = None
        self._doubted = False
        self._last_probe = _NOT_PROBED

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
        self._wake()
        self.on_change(self)

    def _fail(self, why: str, output: tuple[str, ...] = ()) -> NotReady:
        """The attempt has failed: every waiting task gets NotReady. On trial there is no other attempt."""
        self._failure = NotReady(why, output)
        self._emit(BackendNotReady(self.id.pool, str(self.id), why, output, self.reload))
        self._wake()
        return self._failure

    def _wake(self) -> None:
        """Wake the tasks in `wait_change`."""
        self._changed.set()
        self._changed = trio.Event()

    def _request_stop(self) -> None:
        if not self._stop.is_set():
            self._stop.set()
            if self.backend.state is not State.STOPPING:
                self._become(LifecycleEvent.STOPPED)
        if not self._began:
            self._ended.set()
        self._wake()

    def _finish(self) -> None:
        """End of `run`: release the tasks in `stop` and let the output ring age."""
        self._resources.outputs.retire(self.id)
        self._ended.set()
        self._wake()

    def _has_stayed_ready(self, min_ready_s: float) -> bool:
        since = self._passing_since
        return self.backend.state is State.READY and since is not None and self._passing_until - since >= min_ready_s

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._ended.is_set() or self.backend.state in (State.DRAINING, State.STOPPING):
            raise NotReady(f"it is {self.backend.state}")

    def _raise_unproved(self, min_ready_s: float) -> None:
        if self.backend.state is State.UNHEALTHY:
            raise self._fail(f"became unhealthy while it was being proved: {self._last_probe}", self._tail())
        limit_s = self.settings.health.start_timeout_s + min_ready_s
        if self._first_ready is not None and trio.current_time() > self._first_ready + limit_s:
            raise self._fail(f"did not stay ready for {min_ready_s:g}s: {self._last_probe}", self._tail())

    def _tail(self) -> tuple[str, ...]:
        """The last lines of this run."""
        return ()
