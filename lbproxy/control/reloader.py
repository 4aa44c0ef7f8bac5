"""Accepts reload requests: one reload at a time; a signal during a reload asks for one more after it.

Reads the configuration and refuses an invalid one before anything is changed. reload.py carries out the reload.
"""

from collections.abc import Callable
from dataclasses import dataclass

import trio

from lbproxy.config.problems import ConfigInvalid, Problem
from lbproxy.control.reload import ControlContext, Reload, ReloadPlan
from lbproxy.errors import LbproxyError
from lbproxy.model import Generation
from lbproxy.settings import PoolSettings, Settings
from lbproxy.supervise.generation import resolve_generation
from lbproxy.telemetry.events import ConfigRejected, Notice


@dataclass(frozen=True, slots=True)
class ReloadRequest:
    """A reload that a command or a signal asks for."""

    trigger: str  # "command", "USR2", "HUP"
    pools: tuple[str, ...] = ()  # none: the file as a whole
    config_only: bool = False


class ReloadBusy(LbproxyError):
    """Another reload is running."""


class UnknownPool(LbproxyError):
    """The configuration has no pool of that name."""


class Reloader:
    def __init__(self, context: ControlContext, load: Callable[[], Settings]) -> None:
        self._context = context
        self._load = load
        self._busy = False
        self._again: str | None = None
        self._count = 0
        self._nursery: trio.Nursery | None = None

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the reloads. A reload that is cancelled emits a verdict and leaves the backends as they are."""
        try:
            async with trio.open_nursery() as self._nursery:
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

    async def _start_by_signal(self, trigger: str) -> None:
        try:
            await self.start(ReloadRequest(trigger))
        except ReloadBusy:
            self._again = trigger
        except ConfigInvalid:
            return  # already logged
        except Exception as exc:  # no command waits for the answer, and control goes on
            self._context.emit(Notice(f"the reload could not begin: {exc!r}"))

    async def start(self, request: ReloadRequest) -> str:
        """Begin a reload and return its id. Raises ReloadBusy, UnknownPool or ConfigInvalid before any change."""
        if self._busy or self._nursery is None:
            raise ReloadBusy("another reload is running")
        self._busy = True
        try:
            plan = self._plan(request, await trio.to_thread.run_sync(self._load))
        except BaseException as exc:
            self._free()
            if isinstance(exc, ConfigInvalid):
                self._context.emit(ConfigRejected(path=self._context.settings.path or "", problems=exc.text))
            raise
        # The task belongs to control, not to the client of the API: it goes on when that client disconnects.
        self._nursery.start_soon(self._carry_out, plan)
        return plan.id

    def _plan(self, request: ReloadRequest, settings: Settings) -> ReloadPlan:
        names = [pool.name for pool in settings.pools]
        for name in request.pools:
            if name not in names:
                raise UnknownPool(f"no pool '{name}' (there is: {', '.join(names)})")
        wanted = resolve_all(
            [pool for pool in settings.pools if not request.pools or pool.name in request.pools], settings
        )
        self._count += 1
        return ReloadPlan(
            id=f"r{self._count}",
            trigger=request.trigger,
            settings=settings,
            wanted=wanted,
            whole=not request.pools,
            config_only=request.config_only,
        )

    async def _carry_out(self, plan: ReloadPlan) -> None:
        try:
            await Reload(self._context, plan).run()
        finally:
            self._free()

    def _free(self) -> None:
        self._busy = False
        trigger, self._again = self._again, None
        if trigger is not None:
            self.signal(trigger)


def resolve_all(pools: list[PoolSettings], settings: Settings) -> tuple[Generation, ...]:
    """The generation of each pool as it would be made now. Raises ConfigInvalid with every problem at once."""
    generations, problems = [], []
    for pool in pools:
        try:
            generations.append(resolve_generation(0, pool))
        except ValueError as exc:
            problems.append(Problem(settings.path or "lbproxy", 0, 0, f"pool.{pool.name}: {exc}", ""))
    if problems:
        raise ConfigInvalid(problems)
    return tuple(generations)
