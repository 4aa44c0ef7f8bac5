"""The runner of one supervised backend, in one task: spawn, probe, watch; after a crash back off and spawn again.

Does not know pools, tables or reloads. The fleet is told of every change through `on_change`.
"""

import random
import signal
from dataclasses import replace

import trio

from lbproxy.model import BackendSpec, State
from lbproxy.policy.backoff import crashes_in_row, delay_s, gives_up
from lbproxy.policy.lifecycle import LifecycleEvent, spawned
from lbproxy.supervise.command import CannotStart, order_for, user_to_become
from lbproxy.supervise.endpoint import Endpoint
from lbproxy.supervise.handed_on import HandedBackend, HandedProcess, handed_time, taken_time
from lbproxy.supervise.listening_sockets import (
    PortProblem,
    listening_addresses,
    listening_inodes,
    listens_on_path,
    port_problem,
)
from lbproxy.supervise.output_forwarder import OutputForwarder
from lbproxy.supervise.ports import NoFreePort, is_free
from lbproxy.supervise.probe import ProbeResult
from lbproxy.supervise.process import Child
from lbproxy.supervise.resources import Resources
from lbproxy.supervise.run import Run, Verdict, reason, short_name
from lbproxy.supervise.runner import NotReady, Runner
from lbproxy.supervise.session import marked_pids, session_pids
from lbproxy.telemetry.events import (
    BackendExited,
    BackendFailed,
    BackendReady,
    BackendRecycled,
    BackendStarting,
    BackendStopped,
    Notice,
)
from lbproxy.telemetry.text import seconds
from lbproxy.telemetry.words import count

SHOWN_LINES = 20
SLOW_START_S = 10.0  # then the log says what a starting backend waits for,
SLOW_START_AGAIN_S = 30.0  # and again after this
RECYCLED_SOON_S = 1.0  # at most one run in this time, for a backend that exits by itself
PORT_TRIES = 3  # in a row: a taken port is not the backend's fault, but the retries must end
SHOWN_ADDRESSES = 4


class ProcessRunner(Runner):
    def __init__(
        self, spec: BackendSpec, resources: Resources, *, reload: str | None = None, trial: bool | None = None
    ) -> None:
        super().__init__(spec, resources, reload=reload, trial=trial)
        self._current_run: Run | None = None
        self._child: Child | None = None
        self._endpoint: Endpoint | None = None
        self._killed = False
        self._retried = False
        self._port_tries = 0
        self._crashes_in_row = 0
        self._crashes: list[float] = []
        self._restart_at = 0.0  # on Trio's clock, while it is in back-off
        self._found: HandedProcess | None = None  # the process of an earlier program of this control
        self._rests = False  # between the steps of a run: it watches its process, or waits for the next run

    async def run(self) -> None:
        self._began = True
        try:
            if self.backend.state in (State.BACKOFF, State.FAILED):  # taken over
                left_s = max(0.0, self._restart_at - trio.current_time())
                failed = self.backend.state is State.FAILED
                await self._wait_restart(Verdict(LifecycleEvent.DIED, None if failed else left_s))
            while not self._stop.is_set():
                verdict = await self._run_once()
                if verdict is None or (verdict.event is LifecycleEvent.DIED and verdict.restart_in_s is None):
                    break
                await self._wait_restart(verdict)
        finally:
            self._finish()

    def kill(self, why: str = "lbproxy was told to end at once") -> None:
        self._killed = True
        if self._current_run is not None:
            self._current_run.killed_because = self._current_run.killed_because or why
        self._request_stop()
        if self._child is not None:
            self._child.signal(signal.SIGKILL)

    @property
    def is_settled(self) -> bool:
        return super().is_settled and self._rests

    def hand_on(self) -> HandedBackend:
        handed, run, child, endpoint = super().hand_on(), self._current_run, self._child, self._endpoint
        process = child.hand_on(endpoint.hand_on()) if child is not None and endpoint is not None else None
        return replace(
            handed,
            process=process,
            run=run.hand_on() if run is not None else None,
            crashes_at=tuple(map(handed_time, self._crashes)),
            crashes_in_row=self._crashes_in_row,
            restart_at=handed_time(self._restart_at),
        )

    def take_over(self, handed: HandedBackend) -> None:
        super().take_over(handed)
        self._found = handed.process
        self._current_run = Run.take_over(handed.run) if handed.run is not None else None
        self._crashes, self._crashes_in_row = list(map(taken_time, handed.crashes_at)), handed.crashes_in_row
        self._restart_at = taken_time(handed.restart_at)
        if handed.process is not None:
            self._endpoint = self._resources.endpoints.take_over_one(handed.process.endpoint)
            self._child = Child.take_over(handed.process, self._resources.children, self._resources.guard)

    def _why_dead(self) -> str | None:
        """How the last run ended, and what follows from that."""
        run = self._current_run
        if run is None or self._trial:
            return super()._why_dead()
        how = reason(run, retried=False) if run.ready_s is None else f"{run.how} after {seconds(run.ready_s)}"
        if self.backend.state is State.BACKOFF:
            return f"{how}; started again in {seconds(max(0.0, self._restart_at - trio.current_time()))}"
        within_s = self.settings.restart.give_up_within_s
        return f"{how}; {count(len(self._crashes), 'crash', 'crashes')} within {within_s:g}s: not started again"

    def _why_stopping(self) -> str | None:
        run = self._current_run
        if run is None or not run.patient_until:
            return None
        left_s = max(0.0, run.patient_until - trio.current_time())
        return f"told to end by {short_name(self.settings.restart.stop_signal)}, KILL in {seconds(left_s)}"

    # One run

    async def _run_once(self) -> Verdict | None:
        """None: the backend was stopped on request."""
        found, self._found = self._found is not None, None
        if not found or self._current_run is None:
            self._current_run = Run(trio.current_time(), self.output.newest)
            self._reset_health()
        run = self._current_run
        verdict = None
        try:
            verdict = await self._supervise(run)
        except (CannotStart, NoFreePort, OSError) as exc:
            run.why = str(exc)
        except Exception as exc:  # a mistake of ours must not end control
            run.why = f"lbproxy could not supervise it: {exc!r}"
        if self._stop.is_set():
            self._emit_stopped(run)
            return None
        if verdict is None:
            verdict = self._decide(run)
            self._become(verdict.event)
        self._emit_died(run, verdict)
        return verdict

    async def _supervise(self, run: Run) -> Verdict | None:
        """Spawn the process and stay until nothing of it is left. Returns a verdict if it died after it was ready."""
        user = None
        if self._endpoint is None or self._child is None:
            user = user_to_become(self.generation.settings.user)
            self._endpoint = self._resources.endpoints.take(self.generation.settings.bind, self.id.name, user)
        endpoint = self._endpoint
        try:
            child = self._child
            if child is None:
                order = order_for(self.spec, endpoint, user)
                child = await Child.spawn(order, self._resources.children, self._resources.guard)
                endpoint.close_listener()
            async with trio.open_nursery() as reading:
                try:
                    outputs = self._resources.outputs
                    forwarder = OutputForwarder(self.id, self.output, self._emit, per_s=lambda: outputs.logged_per_s)
                    reading.start_soon(child.forward_output, forwarder)
                    verdict = await self._watch_until_dead(run, child, endpoint)
                    await child.wait_rest_gone(run.patient_until - trio.current_time())
                    return verdict
                finally:
                    run.code = await child.reap()
                    self._child = None
                    reading.cancel_scope.cancel()
        finally:
            self._endpoint = None
            self._resources.endpoints.give_back(endpoint)
            if run.ready_s is None and endpoint.port is not None and not is_free(endpoint.port, reuse=True):
                run.port_taken = True

    async def _watch_until_dead(self, run: Run, child: Child, endpoint: Endpoint) -> Verdict | None:
        if self._child is None:  # else it was taken over with its process
            self._child, run.pid = child, child.pid
            self._set(spawned(self.backend, endpoint.address, child.pid))
            self._emit(BackendStarting(self.id.pool, str(self.id), child.pid, str(endpoint.address), self.reload))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, run, child, endpoint)
            nursery.start_soon(self._end_on_request, run, child)
            self._rests = True
            try:
                await child.wait_dead()
            finally:
                self._rests = False
            nursery.cancel_scope.cancel()
        run.code = child.code()
        if self._ready_since is None:
            if run.code == 0 and not self._stop.is_set():
                run.left_behind = await trio.to_thread.run_sync(_other_pids, child.pid, child.mark)
            return None
        # The verdict comes before the last output is read, because a dead backend must leave the table at once.
        run.ready_s = trio.current_time() - self._ready_since
        if self._stop.is_set():
            return None
        verdict = self._decide(run)
        self._become(verdict.event)
        return verdict

    async def _watch(self, run: Run, child: Child, endpoint: Endpoint) -> None:
        if self._ready_since is not None or await self._become_ready_in_time(run, child, endpoint):
            await self._keep_probing(endpoint.address)
        elif run.why is not None:
            run.ending.set()

    async def _become_ready_in_time(self, run: Run, child: Child, endpoint: Endpoint) -> bool:
        limit_s = self.settings.health.start_timeout_s
        tell_at = run.began + SLOW_START_S
        with trio.move_on_at(run.began + limit_s) as limit:
            while True:
                result = await self._probe_start(endpoint)
                self._last_probe = result.detail
                self._wake()
                if result.passed:
                    problem = await self._port_problem(endpoint, child)
                    if problem is None:
                        break
                    self._last_probe = problem.text
                    if problem.stranger:
                        run.why, run.port_taken = problem.text, True
                        return False
                if trio.current_time() >= tell_at:
                    tell_at += SLOW_START_AGAIN_S
                    self._emit(Notice(f"{self.id} is still starting: {self._why_starting()}", self.reload))
                await trio.sleep(self._pause_s())
        if limit.cancelled_caught:
            addresses = await trio.to_thread.run_sync(listening_addresses, child.pid, child.mark)
            elsewhere = _listens_elsewhere(endpoint, addresses)
            run.why, run.late = f"not ready within {limit_s:g}s: {self._last_probe}{elsewhere}", True
            if self._trial:
                self._fail(run.why, self._tail())  # before its end, which may take as long as stop_timeout
        elif self.backend.state is State.STARTING and child.is_alive():
            after_s = round(trio.current_time() - run.began, 3)
            self._emit(BackendReady(self.id.pool, str(self.id), after_s, self.reload))
            self._port_tries = 0
            endpoint.admit_workers()
            self._become_ready()
            return True
        return False

    async def _probe_start(self, endpoint: Endpoint) -> ProbeResult:
        """The result of a probe. Without active probes /proc tells whether a socket listens: a connect is a probe."""
        if self.settings.health.active:
            return await self._ask(endpoint.address)
        if endpoint.address.path is not None:
            listens = await trio.to_thread.run_sync(listens_on_path, endpoint.address.path)
        else:
            listens = bool(await trio.to_thread.run_sync(listening_inodes, endpoint.address.port))
        return ProbeResult(listens, "it listens" if listens else f"nothing listens on {endpoint.address}")

    async def _port_problem(self, endpoint: Endpoint, child: Child) -> PortProblem | None:
        if self.generation.settings.bind != "tcp":
            return None  # a private directory or a socket of ours: no other program can answer there
        assert endpoint.port is not None
        return await trio.to_thread.run_sync(port_problem, endpoint.port, child.pid, child.mark)

    async def _end_on_request(self, run: Run, child: Child) -> None:
        """When `run.ending` is set: send the stop signal to the process group, and KILL after stop_timeout."""
        await run.ending.wait()
        if not self._killed:
            restart = self.settings.restart
            child.signal(restart.stop_signal)
            run.patient_until = trio.current_time() + restart.stop_timeout_s
            await trio.sleep(restart.stop_timeout_s)
            run.killed_because = (
                f"it did not end within {restart.stop_timeout_s:g}s of {short_name(restart.stop_signal)}"
            )
        child.signal(signal.SIGKILL)

    def _request_stop(self) -> None:
        super()._request_stop()
        if self._current_run is not None:
            self._current_run.ending.set()

    # What follows from a death

    def _decide(self, run: Run) -> Verdict:
        if self.backend.state is State.DRAINING:
            return Verdict(LifecycleEvent.DIED, None)
        if run.code == 0 and run.ready_s is not None and run.why is None and not run.ending.is_set():
            lived_s = trio.current_time() - run.began
            if lived_s >= RECYCLED_SOON_S or not self._trial:
                return self._recycle(lived_s)
        if run.ready_s is None and run.port_taken and self._port_tries < PORT_TRIES:
            self._port_tries += 1
            return Verdict(LifecycleEvent.RETRIED, 0.0)
        if self._trial:
            if self._retried or run.late or run.pid is None:
                return Verdict(LifecycleEvent.GAVE_UP, None)
            self._retried = True
            return Verdict(LifecycleEvent.RETRIED, 0.0)
        return self._count_crash(run)

    def _recycle(self, lived_s: float) -> Verdict:
        """The exit is wanted: it does not count towards `give_up`, and it does not roll back a reload.

        A run shorter than RECYCLED_SOON_S is followed by a pause, so that at most one run begins in that time. The
        doubling back-off of crashes would leave a pool with few requests per run without backends.
        """
        self.recycled += 1
        return Verdict(LifecycleEvent.RECYCLED, max(0.0, RECYCLED_SOON_S - lived_s))

    def _count_crash(self, run: Run) -> Verdict:
        now, restart = trio.current_time(), self.settings.restart
        self._crashes = [time for time in self._crashes if time >= now - restart.give_up_within_s] + [now]
        self._crashes_in_row = crashes_in_row(self._crashes_in_row, run.ready_s or 0.0)
        if gives_up(self._crashes, now, restart.give_up_crashes, restart.give_up_within_s):
            return Verdict(LifecycleEvent.GAVE_UP, None)
        pause_s = delay_s(self._crashes_in_row, restart.backoff_first_s, restart.backoff_max_s, random.random())
        self._restart_at = now + pause_s
        return Verdict(LifecycleEvent.DIED, pause_s)

    async def _wait_restart(self, verdict: Verdict) -> None:
        self._rests = True
        try:
            if verdict.restart_in_s is None:
                await self._stop.wait()  # FAILED until it is stopped
                return
            self._restart_at = trio.current_time() + verdict.restart_in_s
            with trio.move_on_at(self._restart_at):
                await self._stop.wait()
        finally:
            self._rests = False
        if self.backend.state is State.BACKOFF:
            self._become(LifecycleEvent.RESTARTED)

    def _emit_died(self, run: Run, verdict: Verdict) -> None:
        pool, name, output = self.id.pool, str(self.id), self._tail()
        if verdict.event is LifecycleEvent.RECYCLED:
            assert run.pid is not None
            assert verdict.restart_in_s is not None
            lived_s, pause_s = round(trio.current_time() - run.began, 3), round(verdict.restart_in_s, 3)
            self._emit(BackendRecycled(pool, name, run.pid, lived_s, pause_s, self.reload))
            self._wake()
            return
        restart_in_s = None if verdict.restart_in_s is None else round(verdict.restart_in_s, 3)
        self._emit(BackendExited(pool, name, run.pid, run.how + run.hint, restart_in_s, output, self.reload))
        if self._trial and verdict.event is LifecycleEvent.GAVE_UP:
            if not run.late:
                self._fail(reason(run, self._retried), output)
            return
        if verdict.event is LifecycleEvent.GAVE_UP:
            restart = self.settings.restart
            self._emit(BackendFailed(pool, name, len(self._crashes), restart.give_up_within_s))
        if run.ready_s is None and verdict.event is not LifecycleEvent.RETRIED:
            self._failure = NotReady(reason(run, retried=False), output)
        self._wake()

    def _emit_stopped(self, run: Run) -> None:
        if run.code is None:
            return  # no process was running
        self._how_stopped = f"exit code {run.code}" if run.code >= 0 else short_name(-run.code)
        why = None
        if run.code == -signal.SIGKILL:
            why = run.killed_because or "not by lbproxy: somebody, or the kernel when memory ran out"
        self._emit(BackendStopped(self.id.pool, str(self.id), self._how_stopped, self.reload, why=why))

    def _tail(self) -> tuple[str, ...]:
        since = self._current_run.first_line if self._current_run is not None else 0
        return tuple(line.text for line in self.output.last(SHOWN_LINES, since=since))


def _other_pids(leader: int, mark: str) -> tuple[int, ...]:
    """The live processes that a dead leader has left behind."""
    return tuple(sorted({*session_pids((leader,)), *marked_pids(mark)} - {leader}))


def _listens_elsewhere(endpoint: Endpoint, addresses: list[str]) -> str:
    """The end of a message: the addresses on which the backend listens, if its endpoint is not one of them."""
    if not addresses or str(endpoint.address) in addresses:
        return ""
    return f" (it listens on {', '.join(addresses[:SHOWN_ADDRESSES])}, not on {endpoint.address})"
