"""A reload as a whole: of the whole file, or of the pools that the request names (DESIGN.md 6).

Listeners are bound first, then the pools are rolled in file order. Routes and listeners are published last, and only if
every pool was rolled. Knows the order and the verdicts. rollout.py rolls one pool; reloader.py accepts the requests.
"""

import json
import time

import trio

from lbproxy.control.context import ControlContext
from lbproxy.control.fleet_context import ProxyView
from lbproxy.control.listening_socket import BindFailed
from lbproxy.control.observation import Observation
from lbproxy.control.plan import Plan, removed_pools, workers_after
from lbproxy.control.pool import Member, Pool, RunningReload
from lbproxy.control.pool_handle import PoolHandle
from lbproxy.control.rollout import Broken, Outcome, Rollout
from lbproxy.model import Generation, ListenerView
from lbproxy.supervise.hook import Hook
from lbproxy.telemetry.events import (
    Notice,
    ReloadDone,
    ReloadFinished,
    ReloadPaused,
    ReloadRollingBack,
    ReloadStarted,
)

EXIT_CODES = {"ok": 0, "rolled_back": 5, "failed": 6, "aborted": 1, "paused": 9}
_WORSE = (0, 5, 6, 1)  # the later, the worse
_ABORTED = "it was aborted"


class Reload:
    """Carries out one plan. For one use."""

    def __init__(self, context: ControlContext, plan: Plan) -> None:
        self.plan = plan
        self.began_at = time.time()
        self.is_paused = False
        self._context = context
        self._aborted = False
        self._rollout: Rollout[Member] | None = None  # the one that runs
        self._hooking = trio.CancelScope()  # of the hook before it
        self._done: list[str] = []  # pools that have a verdict
        self._untouched: list[str] = []
        self._exit_code = 0
        self._current: _PoolReload | None = None

    async def run(self) -> None:
        self._say_started(self.plan.trigger)
        try:
            await self._carry_out()
        except Exception as exc:  # a mistake of ours, which must not end control
            self._give_up("failed", f"lbproxy made a mistake: {exc!r}")
        except BaseException:
            self._give_up("aborted", "lbproxy is being stopped")
            raise
        finally:
            self._context.emit(ReloadFinished(reload=self.plan.id, exit_code=self._exit_code, text=self._text()))

    def touches(self, pool: str) -> bool:
        return any(wanted.settings.name == pool for wanted in self.plan.wanted)

    @property
    def is_decided(self) -> bool:
        """Every pool has its verdict: what still goes on (a hook, pools that leave) does not turn around."""
        return len(self._done) == len(self.plan.wanted)

    def abort(self) -> None:
        """Turn around. Pools that have come through already stay as they are."""
        self._aborted = True
        self.is_paused = False
        self._hooking.cancel()
        if self._rollout is not None:
            self._rollout.abort(_ABORTED)

    def resume(self) -> None:
        """Go on after a pause."""
        self.is_paused = False
        self._say_started("resume")
        if self._rollout is not None:
            self._rollout.resume()

    def _say_started(self, trigger: str) -> None:
        plan = self.plan
        names = tuple(generation.settings.name for generation in plan.wanted)
        started = ReloadStarted(plan.id, trigger, names, plan.verb, _sizes(plan), plan.asked_by, plan.backend, plan.why)
        self._context.emit(started)

    async def _carry_out(self) -> None:
        context, plan = self._context, self.plan
        await context.certificates.look(reload=plan.id)
        listeners = context.listeners
        if plan.whole:
            try:
                listeners = context.sockets.bind(plan.settings.listeners, self._worker_count(), hidden=True)
            except BindFailed as exc:
                self._leave_rest(f"{exc}; nothing has happened", exit_code=1)
                return
        for wanted in plan.wanted:
            if self._aborted:
                self._leave_rest(_ABORTED, exit_code=EXIT_CODES["aborted"])
                if plan.whole:
                    context.sockets.release_others(context.listeners, context.worker_count)
                return
            if await self._roll(wanted) != "ok":
                self._leave_rest(f"never touched: {wanted.settings.name} did not come through", exit_code=0)
                if plan.whole:
                    context.sockets.release_others(context.listeners, context.worker_count)
                return
        if plan.whole:
            await self._publish_proxy_view(listeners)

    # One pool

    async def _roll(self, wanted: Generation) -> str:
        """Roll one pool. Returns the name of the result."""
        fleet, settings = self._context.fleet, wanted.settings
        is_new = settings.name not in fleet.pools
        pool = self._open(wanted) if is_new else fleet.pools[settings.name]
        plan = self.plan
        pool_reload = self._current = _PoolReload(self._context, pool, 0 if is_new else pool.generation.number, plan)
        pool_reload.wanted = wanted
        generation, change = plan.change(pool, wanted, lambda: fleet.next_number(settings.name), is_new=is_new)
        pool_reload.number = generation.number
        handle = PoolHandle(fleet, pool, reload=plan.id, min_ready_s=settings.reload.min_ready_s)

        def turn_back(broken: Broken) -> None:
            pool_reload.head_for(pool_reload.from_number)
            pool_reload.step("rolling back", broken.why)
            self._context.emit(ReloadRollingBack(reload=plan.id, pool=pool.name, why=broken.why))

        def stop_half_way(broken: Broken) -> None:
            self.is_paused = True
            pool_reload.head_for(0)  # both generations serve
            pool_reload.step("paused", broken.why)
            self._context.emit(ReloadPaused(reload=plan.id, pool=pool.name, why=broken.why))
            self._context.emit(pool_reload.verdict(Outcome("paused", broken)))
            text = f"{_serves_now(pool)}\nlbproxy resume, abort or rollback {pool.name} goes on from here"
            self._context.emit(ReloadFinished(reload=plan.id, exit_code=EXIT_CODES["paused"], text=text))

        if change.make and (broken := await self._before(pool_reload, generation)) is not None:
            if is_new:
                await fleet.close_pool(pool)
            result = "aborted" if self._aborted else "rolled_back"
            self._conclude(pool_reload, Outcome(result, broken, touched=False))
            await self._after(pool_reload, result)
            return result
        pauses = settings.reload.on_failure == "pause" and plan.verb in ("reload", "rollback")
        self._rollout = Rollout(handle, change, turn_back, stop_half_way if pauses else None)
        pool_reload.head_for(generation.number)
        pool_reload.step("rolling")
        pool.begin_reload(plan.id)
        try:
            async with trio.open_nursery() as watching:
                watching.start_soon(pool_reload.observation.run)
                outcome = await self._rollout.run()
                watching.cancel_scope.cancel()
        finally:
            self._rollout = None
            pool_reload.head_for(0)
            pool.running_reload = None
            pool.end_reload()
        if outcome.result == "ok":
            pool.apply(settings, generation)
            if plan.verb in ("reload", "rollback"):
                pool.differs = plan.differs
            else:  # what an earlier rollback brought still runs
                pool.differs = tuple(dict.fromkeys((*pool.differs, *plan.differs)))
            if plan.verb != "scale":  # a size until the next reload is nothing to go back to
                self._context.generations.served(generation)
        elif is_new:
            await fleet.close_pool(pool)
        fleet.touch()
        await pool_reload.observation.take_in()
        self._conclude(pool_reload, outcome)
        await self._after(pool_reload, outcome.result)
        return outcome.result

    # Hooks

    async def _before(self, pool_reload: "_PoolReload", generation: Generation) -> Broken | None:
        """Why nothing may happen."""
        command, hooks = self.plan.before_hook(generation), self._context.hooks
        if command is None or hooks is None:
            return None
        pool_reload.step("before hook")
        try:
            with trio.CancelScope() as self._hooking:
                ended = await hooks.run(Hook("before", command, generation, _limit_s(generation)))
        finally:
            pool_reload.pool.running_reload = None
        if self._aborted:
            return Broken(_ABORTED)
        return Broken(f"reload.before: {ended.why}", ended.output) if ended.why is not None else None

    async def _after(self, pool_reload: "_PoolReload", result: str) -> None:
        """A failure is said, and changes nothing."""
        generation = pool_reload.wanted
        command, hooks = self.plan.after_hook(generation), self._context.hooks
        if command is None or hooks is None:
            return
        env = {
            "LBPROXY_RESULT": result,
            "LBPROXY_FROM_GENERATION": str(pool_reload.from_number),
            "LBPROXY_GENERATION": str(pool_reload.number),
        }
        record = await hooks.record_of(self.plan.id, pool_reload.pool.name)
        hook = Hook("after", command, generation, _limit_s(generation), env, json.dumps(record).encode())
        ended = await hooks.run(hook)
        if ended.why is not None:
            said = "".join(f"\n| {line}" for line in ended.output)
            text = f"{pool_reload.pool.name}: reload.after: {ended.why}{said}"
            self._context.emit(Notice(text, reload=self.plan.id))

    def _open(self, wanted: Generation) -> Pool:
        """Open a pool that is new in the file."""
        fleet, settings = self._context.fleet, wanted.settings
        number = fleet.next_number(settings.name)
        return fleet.open_pool(settings, Generation(number, settings, wanted.directory, wanted.env))

    # Listeners and routes

    async def _publish_proxy_view(self, listeners: tuple[ListenerView, ...]) -> None:
        """Change routes and listeners in one table, and retire the pools that the file does not have any more."""
        context, settings = self._context, self.plan.settings
        old, context.settings, context.listeners = context.settings, settings, listeners
        context.loaded_at = time.time()
        context.certificates.adopt(settings, self.plan.id)
        context.fleet.proxy_view = ProxyView.of(settings, listeners)
        context.worker_count = self._worker_count()
        context.workers.resize(context.worker_count)
        for notice in context.apply_live(old, settings):
            context.emit(Notice(notice, reload=self.plan.id))
        context.sockets.show(listeners)
        context.sockets.hide_others(listeners)
        try:
            await context.fleet.wait_applied(context.fleet.publish())
        finally:
            context.sockets.release_others(listeners, context.worker_count)  # hidden sockets that no table uses
            context.certificates.forget_others()
        async with trio.open_nursery() as retiring:
            for pool in removed_pools(context, settings):
                context.generations.forget(pool.name)
                removed = f"pool {pool.name} is removed: the file does not have it any more"
                context.emit(Notice(removed, reload=self.plan.id))
                retiring.start_soon(context.fleet.close_pool, pool, self.plan.id)

    def _worker_count(self) -> int:
        return workers_after(self._context, self.plan.settings)

    # Verdicts

    def _conclude(self, pool_reload: "_PoolReload", outcome: Outcome) -> None:
        self._current = None
        self._say(pool_reload.verdict(outcome), EXIT_CODES[outcome.result])
        if not outcome.touched:
            self._untouched.append(f"the backends of {pool_reload.pool.name}")

    def _give_up(self, result: str, why: str) -> None:
        """End the reload in the middle."""
        if self._current is not None:
            self._context.fleet.retire_unpublished(self._current.pool)
            self._conclude(self._current, Outcome(result, Broken(why)))
        self._leave_rest(why, exit_code=EXIT_CODES[result])

    def _leave_rest(self, why: str, *, exit_code: int) -> None:
        """Emit a verdict for each pool that the reload did not reach."""
        for wanted in self.plan.wanted[len(self._done) :]:
            self._untouched.append(wanted.settings.name)
            pool = self._context.fleet.pools.get(wanted.settings.name)
            if pool is not None:
                pool_reload = _PoolReload(self._context, pool, pool.generation.number, self.plan)
                self._say(pool_reload.verdict(Outcome("aborted", Broken(why))), exit_code)
        self._exit_code = max(self._exit_code, exit_code, key=_WORSE.index)

    def _say(self, done: ReloadDone, exit_code: int) -> None:
        self._done.append(done.pool)
        self._exit_code = max(self._exit_code, exit_code, key=_WORSE.index)
        self._context.emit(done)

    def _text(self) -> str:
        """The generations that serve now, and the parts that were never touched."""
        lines = []
        for name in self._done:
            pool = self._context.fleet.pools.get(name)
            lines.append(_serves_now(pool) if pool is not None else f"{name} was not added")
        if self._exit_code:
            left = [*self._untouched, *(["listeners and routes"] if self.plan.whole else [])]
            if left:
                lines.append(f"never touched: {', '.join(left)}")
        return "\n".join(lines) or "nothing to reload"


def _sizes(plan: Plan) -> tuple[int, ...]:
    """How many new backends each pool gets; empty where only the rollout will find out."""
    if plan.slot is not None:
        return (1,)
    if plan.config_only or any(wanted.settings.command is None for wanted in plan.wanted):
        return ()
    return tuple(wanted.settings.size for wanted in plan.wanted)


def _limit_s(generation: Generation) -> float:
    return generation.settings.health.start_timeout_s


def _serves_now(pool: Pool) -> str:
    numbers = sorted({member.spec.generation.number for member in pool.members if member.published})
    which = " and ".join(map(str, numbers))
    serving = f"generation {which} serves now" if len(numbers) == 1 else f"generations {which} serve now"
    return f"{pool.name}: {serving if numbers else 'nothing serves now'}, {pool.ready} of {pool.size} ready"


class _PoolReload:
    """The facts for the verdict on one pool."""

    def __init__(self, context: ControlContext, pool: Pool, from_number: int, plan: Plan) -> None:
        self.pool = pool
        self.observation = Observation(context, pool)
        self._plan = plan
        self._began = trio.current_time()
        self._before = pool.totals()
        self.from_number = from_number
        self.number = from_number
        self.wanted = pool.generation

    def head_for(self, number: int) -> None:
        self.pool.heading = number if self.pool.generation.settings.command is not None else 0

    def step(self, name: str, why: str | None = None) -> None:
        self.pool.running_reload = RunningReload(self._plan.id, self._plan.verb, name, self.number, why)

    def verdict(self, outcome: Outcome) -> ReloadDone:
        requests, failed, cut, closed = self.pool.served_since(self._before)
        broken = outcome.broken
        return ReloadDone(
            reload=self._plan.id,
            pool=self.pool.name,
            result=outcome.result,
            generation=self.number,
            from_generation=self.from_number,
            duration_s=round(trio.current_time() - self._began, 3),
            requests=requests,
            failed=failed,
            cut=cut,
            websockets_closed=closed,
            why=broken.why if broken is not None else self._plan.why,
            output=broken.output if broken is not None else (),
            verb=self._plan.verb,
            same_as=self._plan.same_as,
            size=self.pool.settings.size if self._plan.verb == "scale" else None,
            differs=self._plan.differs if outcome.result == "ok" else (),
            backend=self._plan.backend,
            held=self.observation.held,
            websocket_closes=self.observation.websocket_closes,
            peak_memory_bytes=self.observation.peak_memory_bytes,
            compared=self.observation.compared,
            longest_hold_s=self.observation.longest_hold_s,
            asked_by=self._plan.asked_by,
        )
