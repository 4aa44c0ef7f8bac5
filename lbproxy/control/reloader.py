"""Accepts what changes the pools: one at a time; a signal during one asks for a reload after it.

Reads the configuration and refuses an invalid one before anything is changed. reload.py carries out the plan.
"""

from collections.abc import Callable
from dataclasses import replace

import trio

from lbproxy.config.problems import ConfigInvalid
from lbproxy.control.context import ControlContext
from lbproxy.control.plan import (
    CannotDo,
    Plan,
    ReloadRequest,
    Request,
    RestartRequest,
    ScaleRequest,
    one_more,
    plan_of,
)
from lbproxy.control.reload import Reload
from lbproxy.control.resolver import Resolver
from lbproxy.errors import LbproxyError
from lbproxy.settings import Settings
from lbproxy.telemetry.events import ConfigRejected, Notice
from lbproxy.telemetry.text import iso_time


class ReloadBusy(LbproxyError):
    """Another change of the pools is running."""


class Reloader:
    def __init__(self, context: ControlContext, load: Callable[[], Settings]) -> None:
        self._context = context
        self._load = load
        self._resolver = Resolver(context)
        self._busy = False
        self._freed = trio.Event()
        self._again: str | None = None
        self._nursery: trio.Nursery | None = None
        self._current: Reload | None = None
        self._held: str | None = None  # what runs instead of a reload

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the reloads. A reload that is cancelled emits a verdict and leaves the backends as they are."""
        try:
            async with trio.open_nursery() as self._nursery:
                await self._nursery.start(self._resolver.run)
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None
            self._busy = True  # no reload can begin any more

    def signal(self, trigger: str) -> None:
        """USR2 or HUP. Any number of signals during a reload cause one more reload after it."""
        if self._busy:
            self._again = trigger
        elif self._nursery is not None:
            self._nursery.start_soon(self._start_by_signal, trigger)

    def scale_by(self, by: int, trigger: str) -> None:
        """TTIN or TTOU: one backend more or less in every supervised pool. During a reload it is refused in the log."""
        sizes = one_more(self._context, by)
        if self._busy or self._nursery is None:
            self._context.emit(Notice(f"{trigger} has no effect: {self._what_runs()}"))
        elif not sizes:
            self._context.emit(
                Notice(f"{trigger} has no effect: no pool can have one backend {'more' if by > 0 else 'less'}")
            )
        else:
            self._nursery.start_soon(self._start_quietly, ScaleRequest(sizes, trigger))

    async def _start_by_signal(self, trigger: str) -> None:
        try:
            await self._start_quietly(ReloadRequest(trigger))
        except ReloadBusy:
            self._again = trigger

    async def _start_quietly(self, request: Request) -> None:
        """No command waits for the answer, and control goes on. Raises ReloadBusy for a reload."""
        try:
            await self.start(request)
        except ReloadBusy:
            if isinstance(request, ReloadRequest):
                raise
            self._context.emit(Notice(f"no effect: {self._what_runs()}"))
        except ConfigInvalid:
            return  # already logged
        except Exception as exc:
            self._context.emit(Notice(f"the reload could not begin: {exc!r}"))

    async def start(self, request: Request, asked_by: dict[str, int | str] | None = None) -> str:
        """Begin and return the id. Raises ReloadBusy, UnknownPool, UnknownGeneration, CannotDo or ConfigInvalid before
        any change."""
        if self._busy or self._nursery is None:
            raise ReloadBusy(self._what_runs())
        self._busy = True
        try:
            settings = await self._read(request)
            plan = plan_of(request, "", self._context, settings)
            plan = replace(plan, id=self._context.ids.next("r"), asked_by=asked_by)
        except BaseException as exc:
            self._free()
            if isinstance(exc, ConfigInvalid):
                self._context.emit(ConfigRejected(path=self._context.settings.path or "", problems=exc.text))
            raise
        self._current = Reload(self._context, plan)
        # The task belongs to control, not to the client of the API: it goes on when that client disconnects.
        self._nursery.start_soon(self._carry_out, self._current)
        return plan.id

    async def preview(self, request: ReloadRequest) -> tuple[Plan, str | None]:
        """The plan that `start` would carry out now, and what runs meanwhile. Changes and logs nothing.

        Raises UnknownPool or ConfigInvalid.
        """
        settings = await self._read(request, keep=False)
        running = self._what_runs() if self._busy else None
        return plan_of(request, "", self._context, settings), running

    def hold(self, why: str) -> None:
        """No change of the pools may begin until `let_go`. Raises ReloadBusy."""
        if self._busy:
            raise ReloadBusy(self._what_runs())
        self._busy, self._held = True, why

    @property
    def again(self) -> str | None:
        """The signal that has asked for a reload after what runs."""
        return self._again

    def let_go(self) -> None:
        self._held = None
        self._free()

    async def wait_free(self) -> None:
        """Returns when no change of the pools is running."""
        while self._busy:
            await self._freed.wait()

    def abort(self, pool: str | None) -> str:
        """Turn the running reload around. Returns its id. Raises CannotDo."""
        reload = self._running(pool, "abort")
        if reload.is_decided:
            raise CannotDo(f"nothing to abort: {reload.plan.id} has its verdict, and is about to end")
        reload.abort()
        return reload.plan.id

    def resume(self, pool: str | None) -> str:
        """Go on with a reload that is paused. Returns its id. Raises CannotDo."""
        reload = self._running(pool, "resume")
        if not reload.is_paused:
            raise CannotDo(f"nothing to resume: {reload.plan.id} is not paused")
        reload.resume()
        return reload.plan.id

    def is_paused(self, pool: str) -> bool:
        """Is a reload of this pool stopped half-way?"""
        return self._current is not None and self._current.is_paused and self._current.touches(pool)

    def _running(self, pool: str | None, verb: str) -> Reload:
        if self._current is None:
            raise CannotDo(f"nothing to {verb}: no reload is running")
        if pool is not None and not self._current.touches(pool):
            raise CannotDo(f"nothing to {verb}: the reload that is running does not touch {pool}")
        return self._current

    def _what_runs(self) -> str:
        if self._held is not None:
            return self._held
        if self._current is None:
            return "another reload is running"
        plan = self._current.plan
        pools = ", ".join(wanted.settings.name for wanted in plan.wanted)
        asked = plan.asked_by or {}
        who = f" of uid {asked['uid']}, pid {asked['pid']}" if {"uid", "pid"} <= set(asked) else ""
        began = iso_time(self._current.began_at)
        which = f"{plan.id}, {plan.verb} of {pools} by {plan.trigger}{who}, since {began}"
        if self._current.is_paused:
            return f"another reload is running ({which}), half-way: resume, abort or rollback goes on from there"
        return f"another reload is running ({which})"

    async def _read(self, request: Request, *, keep: bool = True) -> Settings | None:
        """The file as it is now. Raises ConfigInvalid where it is needed."""
        if isinstance(request, ScaleRequest | RestartRequest):
            return None
        try:
            settings = await trio.to_thread.run_sync(self._load)
            await self._resolver.learn(settings)
            await self._context.certificates.prepare(settings, keep=keep)
            return settings
        except ConfigInvalid:
            if isinstance(request, ReloadRequest):
                raise
            return None  # a rollback is done all the same

    async def _carry_out(self, reload: Reload) -> None:
        try:
            await reload.run()
        finally:
            self._current = None
            self._free()

    def _free(self) -> None:
        self._busy = False
        self._freed.set()
        self._freed = trio.Event()
        trigger, self._again = self._again, None
        if trigger is not None:
            self.signal(trigger)
