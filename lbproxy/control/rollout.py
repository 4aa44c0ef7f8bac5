"""The rollout of one pool: make → prove → publish → drain → stop, and back if a new backend breaks (DESIGN.md 6).

A procedure over `FleetLike`: knows the order of the steps, but not processes, tables or workers. When it returns, every
backend that it retired is stopped. When it is cancelled (control stops) it leaves all backends to the shutdown. Where
a new backend breaks it goes back, or stops half-way until somebody decides (`on_failure = "pause"`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, Protocol, TypeVar

import trio

from lbproxy.model import Backend, BackendSpec, State
from lbproxy.policy import rollout
from lbproxy.supervise.runner import NotReady


@dataclass(frozen=True, slots=True)
class Broken:
    """Why a new backend was not proved, and the last lines of its output."""

    why: str
    output: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    result: str  # ok | rolled_back | failed | aborted, as in ReloadDone
    broken: Broken | None = None
    touched: bool = True  # whether an old backend left the table, even for a while


class MemberLike(Protocol):
    @property
    def spec(self) -> BackendSpec: ...
    @property
    def backend(self) -> Backend: ...


M = TypeVar("M", bound=MemberLike)


class FleetLike(Protocol[M]):
    """The backends of one pool, as a rollout needs them."""

    def make(self, spec: BackendSpec) -> M:
        """Start a backend on trial. It is in no table yet."""

    def make_again(self, spec: BackendSpec) -> M:
        """Start a backend of a generation that has served before. It is in no table yet, but not on trial."""

    async def wait_proved(self, member: M) -> None:
        """Returns when the backend is ready and has stayed ready for `min_ready_s`. Raises NotReady."""

    async def wait_died(self, member: M) -> Broken:
        """Returns when its process has ended by itself."""

    def publish(self, add: Sequence[M], remove: Sequence[M]) -> int:
        """Publish one table with `add` and without `remove`. Returns its epoch.

        The removed backends drain. Added backends that were draining are taken back.
        """

    async def wait_applied(self, epoch: int) -> None:
        """Returns when every live worker has the table."""

    async def wait_drained(self, member: M) -> None:
        """Returns when no worker holds a lease on it, or when its grace is over."""

    async def stop(self, member: M) -> None:
        """TERM, then KILL. Returns when it is gone."""

    async def wait_gone(self, member: M) -> None:
        """Returns when it is stopped for good."""


@dataclass(frozen=True, slots=True)
class Change(Generic[M]):
    """The change of one pool: `make` is started, `replace` is retired, `keep` stays as it is."""

    make: tuple[BackendSpec, ...]
    replace: tuple[M, ...]
    keep: tuple[M, ...] = ()
    surge: int = 1

    @property
    def limit(self) -> int:
        """How many backends may run and not drain."""
        return len(self.keep) + max(len(self.make), len(self.replace)) + self.surge


class Rollout(Generic[M]):
    """One rollout, used once: `await Rollout(fleet, change, on_rollback).run()`.

    `on_pause`: called when it stops half-way; None: it never does.
    """

    def __init__(
        self,
        fleet: FleetLike[M],
        change: Change[M],
        on_rollback: Callable[[Broken], None],
        on_pause: Callable[[Broken], None] | None = None,
    ) -> None:
        self._fleet = fleet
        self._change = change
        self._on_rollback = on_rollback
        self._on_pause = on_pause
        self._to_make: list[BackendSpec] = list(change.make)
        self._old: list[M] = list(change.replace)  # old backends that still serve
        self._retired: list[M] = []  # old backends that left the table
        self._fresh: list[M] = []  # started, in no table yet
        self._new: list[M] = []  # published
        self._dead: list[M] = []  # new backends that died after they were proved
        self._draining: dict[int, trio.CancelScope] = {}
        self._served = {member.spec for member in self._old if member.backend.state in (State.READY, State.UNHEALTHY)}
        self._broken: Broken | None = None
        self._aborted: Broken | None = None
        self._goes_back = False
        self._decided = trio.Event()  # while it is paused
        self._forward_scope = trio.CancelScope()
        self._leaving: trio.Nursery  # retired backends are drained here, beside the next batch and beside a rollback
        self._watching: trio.Nursery

    async def run(self) -> Outcome:
        async with trio.open_nursery() as self._watching:
            async with trio.open_nursery() as self._leaving:
                broken = await self._go()
                if broken is None:
                    outcome = Outcome("ok")
                else:
                    self._goes_back = True
                    self._on_rollback(broken)
                    result = await self._backward()
                    if self._aborted is not None and result == "rolled_back":
                        result = "aborted"
                    outcome = Outcome(result, broken, touched=bool(self._retired))
            self._watching.cancel_scope.cancel()
        return outcome

    def abort(self, why: str) -> None:
        """Turn around, also while it is paused. Without effect once it has turned around."""
        if not self._goes_back:
            self._aborted = self._aborted or Broken(why)
            self._break(self._aborted)
            self._decided.set()

    def resume(self) -> None:
        """Go on after a pause: what broke is made again."""
        self._decided.set()

    # Forward

    async def _go(self) -> Broken | None:
        """Forward, with pauses. Returns why it must go back."""
        while self._aborted is None:
            self._broken = None
            with trio.CancelScope() as self._forward_scope:
                await self._forward()
            if self._broken is None or self._on_pause is None or self._aborted is not None:
                break
            await self._pause(self._broken, self._on_pause)
        return self._aborted or self._broken

    async def _pause(self, broken: Broken, on_pause: Callable[[Broken], None]) -> None:
        """Returns when somebody has decided. What is proved of both generations serves meanwhile."""
        self._decided = trio.Event()
        self._withdraw_broken()
        on_pause(broken)
        await self._decided.wait()
        self._withdraw_broken()  # those that have died meanwhile

    def _withdraw_broken(self) -> None:
        """New backends that are not proved, or have died, are to be made again; not those that serve again by now."""
        for member in [one for one in self._dead if one in self._new and one.backend.state is State.READY]:
            self._dead.remove(member)
            self._watching.start_soon(self._prove_one, member)
        dead = [member for member in self._new if member in self._dead]
        unproved, self._fresh = self._fresh, []
        self._new = [member for member in self._new if member not in dead]
        self._fleet.publish([], dead)
        for member in (*unproved, *dead):
            self._leaving.start_soon(self._fleet.stop, member)
        self._to_make += [member.spec for member in (*unproved, *dead)]

    async def _forward(self) -> None:
        change, to_make = self._change, self._to_make
        slots = rollout.slots_in_order([spec.slot for spec in change.make], _backends(self._old))
        to_make.sort(key=lambda spec: slots.index(spec.slot))
        while to_make or self._old:
            count = rollout.batch_size(len(to_make), self._running(), change.limit)
            self._fresh = [self._fleet.make(spec) for spec in to_make[:count]]
            del to_make[:count]
            await self._prove(self._fresh)
            if self._broken is not None:
                return
            fresh, self._fresh = self._fresh, []
            self._new += fresh
            leaving = self._take_leaving(self._old, len(to_make))
            self._retired += leaving
            epoch = self._publish(fresh, leaving)
            await self._fleet.wait_applied(epoch)
        # A new backend that dies while the last old ones drain still causes a rollback.
        for member in self._retired:
            await self._fleet.wait_gone(member)

    async def _prove(self, fresh: Sequence[M]) -> None:
        """Returns when all are proved, or when one has broken (and with it the rollout)."""
        async with trio.open_nursery() as proving:
            for member in fresh:
                proving.start_soon(self._prove_one, member)

    async def _prove_one(self, member: M) -> None:
        try:
            await self._fleet.wait_proved(member)
        except NotReady as exc:
            self._break(Broken(f"{member.backend.id}: {exc.why}", tuple(exc.output)))
        else:
            self._watching.start_soon(self._watch, member)

    async def _watch(self, member: M) -> None:
        broken = await self._fleet.wait_died(member)
        self._dead.append(member)
        self._break(Broken(f"{member.backend.id}: {broken.why}", broken.output))

    def _break(self, broken: Broken) -> None:
        if self._broken is None:
            self._broken = broken
            self._forward_scope.cancel()

    # Backward

    async def _backward(self) -> str:
        """Bring back all old backends, then retire the new ones. Returns the name of the result."""
        unproved, self._fresh = self._fresh, []
        dead = [member for member in self._new if member in self._dead]
        self._new = [member for member in self._new if member not in self._dead]
        back = [member for member in self._retired if self._take_back(member)]
        self._old += back
        missing = [member.spec for member in self._retired if member not in back]
        self._publish(back, self._take_leaving(self._new, len(missing)))
        self._fleet.publish([], dead)
        for member in (*unproved, *dead):
            self._leaving.start_soon(self._fleet.stop, member)
        if missing:
            # A backend that still runs holds memory, and perhaps a socket, that its successor needs.
            for member in (*unproved, *dead, *(one for one in self._retired if one not in back)):
                await self._fleet.wait_gone(member)
        lost = await self._start_again(missing)
        self._settle(lost)
        return "failed" if any(member.spec in self._served for member in lost) else "rolled_back"

    async def _start_again(self, missing: list[BackendSpec]) -> list[M]:
        """Start `missing` in batches; new backends leave as old ones come. Returns those that were not proved."""
        lost: list[M] = []
        missing = missing.copy()
        while missing:
            count = rollout.batch_size(len(missing), self._running() + len(lost), self._change.limit)
            batch = [self._fleet.make_again(spec) for spec in missing[:count]]
            del missing[:count]
            came: list[M] = []
            async with trio.open_nursery() as proving:
                for member in batch:
                    proving.start_soon(self._prove_again, member, came)
            lost += [member for member in batch if member not in came]
            self._old += came
            epoch = self._publish(came, self._take_leaving(self._new, len(missing) + len(lost)))
            await self._fleet.wait_applied(epoch)
        return lost

    async def _prove_again(self, member: M, came: list[M]) -> None:
        try:
            await self._fleet.wait_proved(member)
        except NotReady:
            return  # its runner has logged the reason
        came.append(member)

    def _settle(self, lost: list[M]) -> None:
        """Keep one new backend for each old backend in `lost`, as far as there are any: capacity comes first.

        The others of `lost` stay under supervision, and serve if they become ready later.
        """
        replaced = lost[: len(self._new)]
        for member in replaced:
            self._leaving.start_soon(self._fleet.stop, member)
        self._fleet.publish(lost[len(replaced) :], [])

    # Both ways

    def _running(self) -> int:
        return rollout.running(_backends((*self._change.keep, *self._old, *self._new)))

    def _take_leaving(self, members: list[M], still_to_come: int) -> list[M]:
        """Remove the members that may leave now from `members`, and return them."""
        ids = set(rollout.leaving(_backends(members), still_to_come))
        leaving = [member for member in members if member.backend.id in ids]
        members[:] = [member for member in members if member.backend.id not in ids]
        return leaving

    def _publish(self, add: Sequence[M], remove: Sequence[M]) -> int:
        epoch = self._fleet.publish(add, remove)
        for member in remove:
            scope = self._draining[id(member)] = trio.CancelScope()
            self._leaving.start_soon(partial(self._leave, member, scope))
        return epoch

    async def _leave(self, member: M, scope: trio.CancelScope) -> None:
        with scope:
            await self._fleet.wait_drained(member)
        if self._draining.pop(id(member), None) is not None:
            await self._fleet.stop(member)

    def _take_back(self, member: M) -> bool:
        """Whether the member still runs and can serve again. If so, it is not stopped any more."""
        scope = self._draining.get(id(member))
        if scope is None or member.backend.state is not State.DRAINING:
            return False
        del self._draining[id(member)]
        scope.cancel()
        return True


def _backends(members: Sequence[MemberLike]) -> list[Backend]:
    return [member.backend for member in members]
