"""Keeps the wanted certificates: each has a task that sleeps until it is due, orders it, and says how it stands.

Knows when (schedule.py) and in which order. How one is ordered is given (`issue`): tests need no authority.
"""

import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio

from lbproxy.acme.certificate_file import Lifetime, read_lifetime
from lbproxy.acme.issue import Answers, NotIssued
from lbproxy.acme.messages import Challenges, Message, Order, Standing
from lbproxy.acme.schedule import after_failure, after_success, renewal_at

AT_ONCE = 4  # orders
LONGEST_SLEEP_S = 600.0  # the clock of the machine may be set meanwhile
SOON_S = 60.0  # an order that has failed is tried again when it is asked for anew, but not more often than this

Serve = Callable[[Answers], Awaitable[None]]
Issue = Callable[[Order, Serve], Awaitable[Lifetime]]


@dataclass(slots=True, eq=False)
class _Kept:
    order: Order
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    asked_again: trio.Event = field(default_factory=trio.Event)
    tried_at: float = 0.0


class Keeper:
    """`say`: gets the messages for control. `now`: seconds of the epoch."""

    def __init__(self, issue: Issue, say: Callable[[Message], None], now: Callable[[], float] = time.time) -> None:
        self._issue = issue
        self._say = say
        self._now = now
        self._kept: dict[Order, _Kept] = {}
        self._limiter = trio.CapacityLimiter(AT_ONCE)
        self._numbers = 0
        self._waiting: dict[int, trio.Event] = {}  # for the workers, by the number of the challenges

    def want(self, orders: tuple[Order, ...], nursery: trio.Nursery) -> None:
        """All that are wanted from now on."""
        for order in set(self._kept) - set(orders):
            self._kept.pop(order).scope.cancel()
        for order in orders:
            if order in self._kept:
                self._kept[order].asked_again.set()
            else:
                kept = self._kept[order] = _Kept(order)
                nursery.start_soon(self._keep, kept)

    def served(self, number: int) -> None:
        if number in self._waiting:
            self._waiting.pop(number).set()

    async def _keep(self, kept: _Kept) -> None:
        with kept.scope:
            lifetime = read_lifetime(kept.order.file)
            due = self._now()
            if lifetime is not None and not lifetime.stands_in:
                due = renewal_at(lifetime.not_before, lifetime.not_after, random.random())
            failures, was_refused = 0, False
            state, why = "waiting", ""
            while True:
                if due > self._now():
                    self._say(Standing(kept.order.file, state, why, due))
                await self._sleep_until(due, kept, failures)
                self._say(Standing(kept.order.file, "ordering", why))
                kept.tried_at = self._now()
                try:
                    lifetime = await self._order(kept.order)
                except NotIssued as exc:
                    failures = failures + 1 if exc.failure.is_refused == was_refused else 1
                    was_refused = exc.failure.is_refused
                    due = after_failure(
                        *(failures, self._now(), random.random()),
                        is_refused=exc.failure.is_refused,
                        retry_after_s=exc.retry_after_s,
                    )
                    state, why = "failed", exc.failure.why
                else:
                    failures, state, why = 0, "waiting", ""
                    due = after_success(lifetime.not_before, lifetime.not_after, self._now(), random.random())

    async def _sleep_until(self, due: float, kept: _Kept, failures: int) -> None:
        """Until it is due, or a failed one is asked for anew."""
        kept.asked_again = trio.Event()
        while (left_s := due - self._now()) > 0:
            with trio.move_on_after(min(left_s, LONGEST_SLEEP_S)):
                await kept.asked_again.wait()
                kept.asked_again = trio.Event()
                if failures:
                    due = min(due, kept.tried_at + SOON_S)

    async def _order(self, order: Order) -> Lifetime:
        self._numbers += 1
        number = self._numbers

        async def serve(answers: Answers) -> None:
            """Returns when every worker answers."""
            told = self._waiting[number] = trio.Event()
            self._say(Challenges(number, answers))
            await told.wait()

        try:
            async with self._limiter:
                return await self._issue(order, serve)
        finally:
            self._waiting.pop(number, None)
            self._say(Challenges(number, ()))
