"""What a reload would do, as plain JSON values: the answer of `POST /v1/plan`. Changes nothing.

The decisions are asked of the code that carries a plan out: Plan.change, the batches of the rollout, the keys that a
backend is made of, what waits for the next start.
"""

import statistics
from collections import Counter as Tally
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import trio

from lbproxy.control.context import ControlContext
from lbproxy.control.diff import making_keys
from lbproxy.control.generations import differing_keys
from lbproxy.control.history import MOST_RECORDS, History
from lbproxy.control.plan import Plan, removed_pools, workers_after
from lbproxy.control.pool import Member, Pool
from lbproxy.control.proxy_changes import listener_changes, route_changes, setting_changes
from lbproxy.control.rollout import Change
from lbproxy.link.grid import Counter
from lbproxy.model import Generation, LeaseKind, State
from lbproxy.policy import rollout
from lbproxy.policy.goodbye import longest_s
from lbproxy.supervise.free_memory import FreeMemory, free_memory
from lbproxy.supervise.usage import Usage, read_usage

RECENT_RELOADS = 5  # of a pool; their median is the expected duration
_NOTHING: dict[str, list[Any]] = {"added": [], "changed": [], "gone": []}
_MOVING = ("size", "targets", "tls")  # keys that start or stop backends, and leave the others alone
_LEAVING = (State.DRAINING, State.STOPPING)  # backends that go whatever is planned


@dataclass(frozen=True, slots=True)
class Measures:
    usage: Mapping[int, Usage]  # by the pid of a backend
    free: FreeMemory


async def measure(context: ControlContext) -> Measures:
    """The memory of every backend, and what is free. Reads /proc in a thread: many processes take a while."""
    pools = context.fleet.pools.values()
    pids = {member.backend.pid for pool in pools for member in pool.members if member.backend.pid is not None}
    return await trio.to_thread.run_sync(lambda: Measures(read_usage(pids), free_memory()))


@dataclass(frozen=True, slots=True)
class Forecast:
    """`document` is the whole of it. For one use."""

    context: ControlContext
    plan: Plan
    history: History
    measures: Measures

    def document(self, running: str | None) -> dict[str, Any]:
        """`running`: the reload that runs now, in words."""
        context, plan = self.context, self.plan
        pools = {wanted.settings.name: self._pool(wanted) for wanted in plan.wanted}
        listeners, routes, settings = _NOTHING, _NOTHING, {"live": list[str](), "next_start": list[str]()}
        workers = context.worker_count
        if plan.whole:
            workers = workers_after(context, plan.settings)
            pools |= {pool.name: self._removed(pool) for pool in removed_pools(context, plan.settings)}
            listeners = listener_changes(
                *(context.listeners, plan.settings.listeners),
                why_not=context.sockets.why_not,
                connections=lambda view: context.fleet.context.grid.sum(view.cell, Counter.CONNECTIONS),
            )
            routes = route_changes(context.settings.routes, plan.settings.routes)
            settings = setting_changes(context.settings, plan.settings, workers)
        differs = any((*listeners.values(), *routes.values(), *settings.values()))
        differs |= any(pool["keys"] or pool["action"] in ("added", "removed") for pool in pools.values())
        problems = [one["problem"] for one in listeners["added"] if one["problem"] is not None]
        return {
            "version": 1,
            "path": plan.settings.path,
            "config_only": plan.config_only,
            "whole": plan.whole,
            "running": running,
            "differs": differs,  # from what runs
            "nothing": not differs and all(pool["action"] == "unchanged" for pool in pools.values()),
            "would_fail": problems[0] if problems else None,  # as the reload would say it, before it touches anything
            "listeners": listeners,
            "routes": routes,
            "settings": settings,
            "workers": {"now": context.worker_count, "then": workers},
            "pools": pools,
            "connections": _added_up(pool["connections"] for pool in pools.values()),
            "memory": self._memory(pools),
            "expected_s": _sum_of([pool["expected_s"] for pool in pools.values()]),
        }

    def _pool(self, wanted: Generation) -> dict[str, Any]:
        fleet, settings = self.context.fleet, wanted.settings
        newest = fleet.numbers().get(settings.name, 0)

        def number() -> int:
            nonlocal newest
            newest += 1
            return newest

        pool = fleet.pools.get(settings.name)
        is_new = pool is None
        if pool is None:
            pool = Pool(settings, replace(wanted, number=number()), fleet.context.grid, 0, names=fleet.names)
        generation, change = self.plan.change(pool, wanted, number, is_new=is_new)
        leaving = [member for member in change.replace if member.backend.state not in _LEAVING]
        keys = () if is_new else differing_keys(pool.generation, wanted)
        making = making_keys(pool.generation, wanted)
        slots = {spec.slot for spec in change.make}
        old_slots = {member.spec.slot for member in leaving}
        replaced = [member for member in leaving if member.spec.slot in slots]
        because = [key for key in keys if key in making]
        because += [key for key in keys if key.partition(".")[0] in _MOVING and key not in making]
        return {
            "action": "added" if is_new else _action(change, keys),
            "generation": generation.number,
            "from_generation": None if is_new else pool.generation.number,
            "size": fleet.names.size(settings),
            "from_size": 0 if is_new else pool.size,
            "directory": wanted.directory if settings.command is not None else None,
            "keys": list(keys),
            "because": because,  # of them: those that start, stop or replace backends
            "live": [key for key in keys if key not in because],
            "anyway": bool(replaced) and not making and not self.plan.config_only and settings.command is not None,
            "replaced": _names(replaced),
            "started": [str(spec.id) for spec in change.make if spec.slot not in old_slots],
            "stopped": _names(member for member in leaving if member.spec.slot not in slots),
            "kept": _names(change.keep),
            "before": self.plan.before_hook(wanted) if change.make else None,
            "after": self.plan.after_hook(wanted),
            **_held(pool, leaving),
            "memory": _memory_of(change, self.measures.usage),
            **self._expected(pool.name, change, settings.size),
        }

    def _removed(self, pool: Pool) -> dict[str, Any]:
        return {
            "action": "removed",
            "from_generation": pool.generation.number,
            "from_size": pool.size,
            "keys": [],
            "stopped": _names(pool.members),
            **_held(pool, pool.members),
            "memory": None,
            "expected_s": 0.0,  # beside the drains of what it has in hand
            "from_reloads": 0,
        }

    def _expected(self, pool: str, change: Change[Member], size: int) -> dict[str, Any]:
        """The median of the pool's last reloads that replaced its backends; of that a part if only some start."""
        if not change.make:
            return {"expected_s": 0.0, "from_reloads": 0}  # beside the drains of what it has in hand
        took_s = [
            record["duration_s"]
            for record in self.history.of(pool, MOST_RECORDS)
            if record["result"] == "ok"
            and record["verb"] == "reload"
            and record["generation"] != record["from_generation"]
        ][-RECENT_RELOADS:]
        part = len(change.make) / max(size, len(change.make))
        expected_s = round(part * statistics.median(took_s), 3) if took_s else None
        return {"expected_s": expected_s, "from_reloads": len(took_s)}

    def _memory(self, pools: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
        """Of all pools, which are rolled one after the other, so that the largest step counts."""
        usage, free = self.measures.usage, self.measures.free
        known = [pool["memory"] for pool in pools.values() if pool["memory"] is not None]
        now_bytes = sum(one.resident_bytes for one in usage.values())
        more_bytes = max((memory["more_bytes"] for memory in known), default=0)
        at_most_bytes = max((memory["at_most_bytes"] for memory in known), default=0)
        least = free.least_bytes
        return {
            "now_bytes": now_bytes,
            "peak_bytes": now_bytes + more_bytes,
            "at_most_bytes": now_bytes + at_most_bytes,  # while all old backends still drain
            "free_host_bytes": free.host_bytes,
            "free_cgroup_bytes": free.cgroup_bytes,
            "fits": least is None or more_bytes <= least,
            "not_measured": [
                name for name, pool in pools.items() if pool["memory"] is None and _starts_processes(pool)
            ],
        }


def _action(change: Change[Member], keys: tuple[str, ...]) -> str:
    if change.replace and not change.keep:
        return "replaced"
    return "changed" if change.make or change.replace or keys else "unchanged"


def _names(members: Iterable[Member]) -> list[str]:
    return [str(member.backend.id) for member in sorted(members, key=lambda member: member.backend.id)]


def _held(pool: Pool, leaving: Iterable[Member]) -> dict[str, Any]:
    """The leases of backends that would leave, by kind, and how long these may take."""
    leases = _added_up(pool.leases(member) for member in leaving)
    return {
        "connections": leases,
        "drain_at_most_s": longest_s(pool.settings.drain, [LeaseKind(kind) for kind in leases]),
    }


def _added_up(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total = Tally[str]()
    for one in counts:
        total.update(one)
    return dict(total)


def _sum_of(parts_s: list[float | None]) -> float | None:
    """None if one part is not known."""
    known = [part for part in parts_s if part is not None]
    return round(sum(known), 3) if len(known) == len(parts_s) else None


def _starts_processes(pool: Mapping[str, Any]) -> bool:
    return pool.get("directory") is not None and bool(pool["replaced"] or pool["started"])


def _memory_of(change: Change[Member], usage: Mapping[int, Usage]) -> dict[str, Any] | None:
    """What a batch of new backends takes, each as much as the largest that runs; None if nothing was measured."""
    old = [*change.keep, *change.replace]
    sizes = [usage[pid].resident_bytes for member in old if (pid := member.backend.pid) is not None and pid in usage]
    if not sizes:
        return None
    running = rollout.running(member.backend for member in old)
    batch = rollout.batch_size(len(change.make), running, change.limit)
    return {
        "now_bytes": sum(sizes),
        "each_bytes": max(sizes),
        "at_a_time": batch,
        "more_bytes": batch * max(sizes),
        "at_most_bytes": len(change.make) * max(sizes),
    }
