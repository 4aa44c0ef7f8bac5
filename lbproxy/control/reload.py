"""The reload of one pool: make → prove → publish → drain → stop; and backwards when the new ones break (DESIGN.md 6).

A procedure over `FleetLike`: it knows the order of things, and neither processes nor tables nor workers. Whatever
happens, it returns with every backend that it retired stopped. Cancelled (control is told to stop) it leaves things as
they are: the shutdown stops everything.
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
    """Why a new backend was not good enough, and the last lines it wrote."""

    why: str
    output: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    result: str  # ok | rolled_back | failed, as in ReloadDone
    broken: Broken | None = None
    touched: bool = True  # whether an old one was taken out of the table, be it for a while


class MemberLike(Protocol):
    @property
    def spec(self) -> BackendSpec: ...
    @property
    def backend(self) -> Backend: ...


M = TypeVar("M", bound=MemberLike)


class FleetLike(Protocol[M]):
    """One pool's backends, as a rollout handles them."""

    def make(self, spec: BackendSpec) -> M:
        """Start one on trial. It is in no table yet."""

    def make_again(self, spec: BackendSpec) -> M:
        """Start one of a generation that has served before: it is not on trial, only in no table yet."""

    async def wait_proved(self, member: M) -> None:
        """Ready, and has stayed ready for a while. Raises NotReady."""

    async def wait_died(self, member: M) -> Broken:
        """Its process has ended without being asked to."""

    def publish(self, add: Sequence[M], remove: Sequence[M]) -> int:
        """Make one table with `add` and without `remove`: these drain, and added ones that drained are taken back.

        Returns the table's epoch.
        """

    async def wait_applied(self, epoch: int) -> None:
        """Every live worker has the table."""

    async def wait_drained(self, member: M) -> None:
        """No worker holds work for it, or its grace is over."""

    async def stop(self, member: M) -> None:
        """TERM, then KILL; returns when it is gone."""

    async def wait_gone(self, member: M) -> None:
        """It has been stopped for good."""


@dataclass(frozen=True, slots=True)
class Change(Generic[M]):
    """What a rollout does to a pool: `make` comes, `replace` goes, `keep` stays as it is."""

    make: tuple[BackendSpec, ...]
    replace: tuple[M, ...]
    keep: tuple[M, ...] = ()
    surge: int = 1

    @property
    def limit(self) -> int:
        """How many may run that do not drain."""
        return len(self.keep) + max(len(self.make), len(self.replace)) + self.surge


class Rollout(Generic[M]):
    """One use: `await Rollout(fleet, change, on_rollback).run()`."""

    def __init__(self, fleet: FleetLike[M], change: Change[M], on_rollback: Callable[[Broken], None]) -> None:
        self._fleet = fleet
        self._change = change
        self._on_rollback = on_rollback
        self._old: list[M] = list(change.replace)  # serve still
        self._retired: list[M] = []  # old ones that were taken out of the table
        self._fresh: list[M] = []  # made, in no table yet
        self._new: list[M] = []  # published
        self._dead: list[M] = []  # new ones that were proved and then died
        self._draining: dict[int, trio.CancelScope] = {}
        self._served = {member.spec for member in self._old if member.backend.state in (State.READY, State.UNHEALTHY)}
        self._broken: Broken | None = None
        self._forward_scope = trio.CancelScope()
        self._leaving: trio.Nursery  # retired ones on their way out, beside the next batch and beside a rollback
        self._watching: trio.Nursery

    async def run(self) -> Outcome:
        async with trio.open_nursery() as self._watching:
            async with trio.open_nursery() as self._leaving:
                with self._forward_scope:
                    await self._forward()
                if self._broken is None:
                    outcome = Outcome("ok")
                else:
                    self._on_rollback(self._broken)
                    outcome = Outcome(await self._backward(), self._broken, touched=bool(self._retired))
            self._watching.cancel_scope.cancel()
        return outcome

    # Forward

    async def _forward(self) -> None:
        change = self._change
        slots = rollout.slots_in_order([spec.slot for spec in change.make], _backends(self._old))
        to_make = sorted(change.make, key=lambda spec: slots.index(spec.slot))
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
        # A new one that dies while the last old ones drain still turns the rollout around.
        for member in self._retired:
            await self._fleet.wait_gone(member)

    async def _prove(self, fresh: Sequence[M]) -> None:
        """Returns when all are proved, or one has broken (and with it the rollout)."""
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
        """Bring the old ones back to full strength, then let the new ones go. Returns the result's name."""
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
            # Not before: what still runs takes the room, and perhaps the socket, of what is started again.
            for member in (*unproved, *dead, *(one for one in self._retired if one not in back)):
                await self._fleet.wait_gone(member)
        lost = await self._start_again(missing)
        self._settle(lost)
        return "failed" if any(member.spec in self._served for member in lost) else "rolled_back"

    async def _start_again(self, missing: list[BackendSpec]) -> list[M]:
        """Batch by batch, new ones leaving as old ones come. Returns those that did not come."""
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
            return  # said in the log by the backend itself
        came.append(member)

    def _settle(self, lost: list[M]) -> None:
        """For each old one that did not come back a new one serves on, while there are any: capacity comes first.

        The others of `lost` stay under supervision, and serve should they come up later.
        """
        replaced = lost[: len(self._new)]
        for member in replaced:
            self._leaving.start_soon(self._fleet.stop, member)
        self._fleet.publish(lost[len(replaced) :], [])

    # Both ways

    def _running(self) -> int:
        return rollout.running(_backends((*self._change.keep, *self._old, *self._new)))

    def _take_leaving(self, members: list[M], still_to_come: int) -> list[M]:
        """Take out of `members` those that may leave now."""
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
        """Whether it is still there to serve on; then it is not stopped any more."""
        scope = self._draining.get(id(member))
        if scope is None or member.backend.state is not State.DRAINING:
            return False
        del self._draining[id(member)]
        scope.cancel()
        return True


def _backends(members: Sequence[MemberLike]) -> list[Backend]:
    return [member.backend for member in members]
