"""What is to be done to the pools, decided before anything is touched: the plan of a reload, rollback, scale, restart.

Plain functions over the request, the settings and what runs. reload.py carries a plan out.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from lbproxy.config.problems import ConfigInvalid, Problem
from lbproxy.config.values import MOST_PROCESSES
from lbproxy.control.context import ControlContext
from lbproxy.control.diff import Diff, diff, one_slot
from lbproxy.control.generations import differing_keys
from lbproxy.control.pool import Pool
from lbproxy.errors import LbproxyError
from lbproxy.model import Generation
from lbproxy.settings import PoolSettings, Settings
from lbproxy.supervise.generation import resolve_generation


class UnknownPool(LbproxyError):
    """There is no pool of that name."""


class CannotDo(LbproxyError):
    """The request makes no sense for what runs. Nothing was touched."""


@dataclass(frozen=True, slots=True)
class ReloadRequest:
    """Read the file anew, and replace the backends. `pools`: none = the file as a whole."""

    trigger: str  # "command", "USR2", "HUP"
    pools: tuple[str, ...] = ()
    config_only: bool = False


@dataclass(frozen=True, slots=True)
class RollbackRequest:
    pool: str
    to: int | None = None  # None: the newest kept one


@dataclass(frozen=True, slots=True)
class ScaleRequest:
    """`sizes`: pool and number of backends."""

    sizes: tuple[tuple[str, int], ...]
    trigger: str = "command"


@dataclass(frozen=True, slots=True)
class RestartRequest:
    """`recycle_why`: lbproxy's own reason; None where an operator asks."""

    pool: str
    slot: int
    recycle_why: str | None = None


Request = ReloadRequest | RollbackRequest | ScaleRequest | RestartRequest


@dataclass(frozen=True, slots=True)
class Plan:
    """`wanted`: the new settings of each pool, in file order; their numbers are not used."""

    id: str
    trigger: str
    settings: Settings
    wanted: tuple[Generation, ...]
    whole: bool = False  # also listeners, routes and removed pools
    config_only: bool = False
    verb: str = "reload"  # reload | rollback | scale | restart | recycle
    same_as: int | None = None  # the kept generation that a rollback brings back
    slot: int | None = None  # the only one that a restart replaces
    differs: tuple[str, ...] = ()  # keys of the pool that are not as in the file, afterwards
    asked_by: dict[str, int | str] | None = None  # uid, pid, how
    why: str | None = None  # of a recycle

    @property
    def backend(self) -> str | None:
        """The name of the only backend that it replaces."""
        return None if self.slot is None else f"{self.wanted[0].settings.name}.{self.slot}"

    def change(self, pool: Pool, wanted: Generation, number: Callable[[], int], *, is_new: bool) -> Diff:
        """The generation that serves afterwards, and what happens to the backends."""
        if self.slot is not None:
            return one_slot(pool, self.slot)
        return diff(pool, wanted, number, config_only=self.config_only or is_new)

    def before_hook(self, generation: Generation) -> tuple[str, ...] | None:
        """The command that runs before a backend is made. None of a rollback: what it brings back has served."""
        return generation.settings.reload.before if self.verb == "reload" else None

    def after_hook(self, generation: Generation) -> tuple[str, ...] | None:
        """The command that runs when the pool has its verdict."""
        return generation.settings.reload.after if self.verb in ("reload", "rollback") else None


def plan_of(request: Request, id: str, context: ControlContext, settings: Settings | None) -> Plan:
    """`settings`: of the file as it is now; only a reload needs them.

    Raises UnknownPool, UnknownGeneration, CannotDo or ConfigInvalid.
    """
    match request:
        case ReloadRequest():
            assert settings is not None
            return _reload(request, id, settings)
        case RollbackRequest():
            return _rollback(request, id, context, settings)
        case ScaleRequest():
            return _scale(request, id, context)
        case RestartRequest(name, slot, recycle_why):
            pool = running_pool(context, name)
            supervised(pool)
            if slot not in {member.spec.slot for member in pool.members}:
                raise CannotDo(f"there is no backend {name}.{slot}")
            trigger, verb = ("command", "restart") if recycle_why is None else ("max_memory", "recycle")
            return Plan(*(id, trigger, context.settings, (pool.generation,)), verb=verb, slot=slot, why=recycle_why)


def running_pool(context: ControlContext, name: str) -> Pool:
    """Raises UnknownPool."""
    pool = context.fleet.pools.get(name)
    if pool is None:
        raise UnknownPool(f"no pool '{name}' (there is: {', '.join(context.fleet.pools)})")
    return pool


def supervised(pool: Pool) -> None:
    """Raises CannotDo for fixed addresses."""
    if pool.settings.command is None:
        raise CannotDo(f"{pool.name} has fixed addresses: the file says which")


def _reload(request: ReloadRequest, id: str, settings: Settings) -> Plan:
    names = [pool.name for pool in settings.pools]
    for name in request.pools:
        if name not in names:
            raise UnknownPool(f"no pool '{name}' (there is: {', '.join(names)})")
    wanted = [pool for pool in settings.pools if not request.pools or pool.name in request.pools]
    return Plan(
        *(id, request.trigger, settings),
        resolve_all(wanted, settings),
        whole=not request.pools,
        config_only=request.config_only,
    )


def _rollback(request: RollbackRequest, id: str, context: ControlContext, settings: Settings | None) -> Plan:
    pool = running_pool(context, request.pool)
    supervised(pool)
    kept = context.generations.find(pool.name, request.to)
    return Plan(
        *(id, "command", context.settings, (kept.generation,)),
        verb="rollback",
        same_as=kept.numbers[0],
        differs=_differs_from_file(kept.generation, settings),
    )


def _differs_from_file(generation: Generation, settings: Settings | None) -> tuple[str, ...]:
    """`settings`: None where the file cannot be read."""
    if settings is None:
        return ("the file is not valid",)
    in_file = next((pool for pool in settings.pools if pool.name == generation.settings.name), None)
    if in_file is None:
        return ("the file does not have this pool",)
    try:
        return differing_keys(generation, resolve_generation(0, in_file))
    except ValueError as exc:
        return (str(exc),)


def _scale(request: ScaleRequest, id: str, context: ControlContext) -> Plan:
    wanted = []
    for name, size in request.sizes:
        pool = running_pool(context, name)
        supervised(pool)
        if size > MOST_PROCESSES:
            raise CannotDo(f"{name}={size}: at most {MOST_PROCESSES}")
        if size < 1:
            raise CannotDo(f"{name}={size}: at least 1 (pause {name} holds requests, stop ends all)")
        wanted.append(replace(pool.generation, settings=replace(pool.settings, size=size)))
    return Plan(id, request.trigger, context.settings, tuple(wanted), config_only=True, verb="scale", differs=("size",))


def workers_after(context: ControlContext, settings: Settings) -> int:
    """How many workers run after a reload: it can add some, but end none."""
    return max(context.worker_count, min(settings.proxy.workers, context.most_workers))


def removed_pools(context: ControlContext, settings: Settings) -> list[Pool]:
    """The pools that the file does not have any more."""
    wanted = {pool.name for pool in settings.pools}
    return [pool for name, pool in context.fleet.pools.items() if name not in wanted]


def one_more(context: ControlContext, by: int) -> tuple[tuple[str, int], ...]:
    """The sizes after TTIN (1) or TTOU (-1): of every supervised pool that changes by it."""
    pools = [pool for pool in context.fleet.pools.values() if pool.settings.command is not None]
    return tuple(
        (pool.name, pool.settings.size + by) for pool in pools if 1 <= pool.settings.size + by <= MOST_PROCESSES
    )


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
