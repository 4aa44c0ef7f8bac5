"""Certificates that are kept: virtual time, and an authority that is a function."""

from pathlib import Path

import trio
from support.trio_test import trio_test

from lbproxy.acme.certificate_file import Lifetime
from lbproxy.acme.failure import Failure
from lbproxy.acme.issue import NotIssued
from lbproxy.acme.keeper import Keeper, Serve
from lbproxy.acme.messages import Challenges, Message, Order, Standing
from lbproxy.acme.placeholder import write_placeholder
from lbproxy.control.changed import Changed

DAY_S = 86_400.0


class Kept:
    """A keeper whose clock is Trio's, and an authority that issues for 90 days, or fails with what is in `refusals`."""

    def __init__(self) -> None:
        self.said: list[Message] = []
        self.asked: list[tuple[str, float]] = []
        self.refusals: list[NotIssued] = []
        self.changed = Changed()
        self.start = trio.current_time()
        self.keeper = Keeper(self.issue, self.say, self.now)

    def now(self) -> float:
        return trio.current_time() - self.start

    async def issue(self, order: Order, serve: Serve) -> Lifetime:
        self.asked.append((order.domains[0], self.now()))
        await serve((("token", "answer"),))
        if self.refusals:
            raise self.refusals.pop(0)
        return Lifetime(self.now(), self.now() + 90 * DAY_S, stands_in=False)

    def say(self, message: Message) -> None:
        self.said.append(message)
        self.changed.notify()
        if isinstance(message, Challenges) and message.answers:
            self.keeper.served(message.number)

    def standings(self) -> list[tuple[str, str]]:
        return [(message.state, message.why) for message in self.said if isinstance(message, Standing)]

    async def wait_asked(self, count: int) -> None:
        """Until so many orders have been made, and the last one has ended."""
        await self.changed.wait(lambda: len(self.asked) >= count and self.standings()[-1][0] != "ordering")


def order(tmp_path: Path, name: str = "a.example") -> Order:
    return Order(str(tmp_path / f"{name}.pem"), (name,), "https://ca.example/dir")


@trio_test(clock="autojump", timeout_s=300 * DAY_S)
async def test_it_is_ordered_at_once_and_renewed_at_two_thirds(tmp_path: Path) -> None:
    kept = Kept()
    write_placeholder(order(tmp_path).file, ["a.example"])
    async with trio.open_nursery() as nursery:
        kept.keeper.want((order(tmp_path),), nursery)
        await kept.wait_asked(3)
        nursery.cancel_scope.cancel()
    first, second, third = (at for _, at in kept.asked)
    assert first == 0
    for pause_s in (second - first, third - second):
        assert 56 * DAY_S < pause_s < 61 * DAY_S
    assert kept.standings()[:2] == [("ordering", ""), ("waiting", "")]
    numbers = [message.number for message in kept.said if isinstance(message, Challenges) and message.answers]
    assert numbers == [1, 2, 3]


@trio_test(clock="autojump", timeout_s=300 * DAY_S)
async def test_a_failure_is_tried_again_and_asked_for_anew_sooner(tmp_path: Path) -> None:
    kept = Kept()
    refused = Failure("the authority refuses", is_refused=True)
    kept.refusals = [NotIssued(refused, 7200.0), NotIssued(refused)]
    async with trio.open_nursery() as nursery:
        kept.keeper.want((order(tmp_path),), nursery)
        await kept.wait_asked(2)
        first, second = (at for _, at in kept.asked)
        assert second - first >= 7200.0
        kept.keeper.want((order(tmp_path),), nursery)
        await kept.wait_asked(3)
        assert 50.0 < kept.asked[2][1] - second < 120.0
        nursery.cancel_scope.cancel()
    assert ("failed", "the authority refuses") in kept.standings()
    assert kept.standings()[-1] == ("waiting", "")


@trio_test(clock="autojump", timeout_s=300 * DAY_S)
async def test_what_is_not_wanted_any_more_is_not_ordered_again(tmp_path: Path) -> None:
    kept = Kept()
    async with trio.open_nursery() as nursery:
        kept.keeper.want((order(tmp_path), order(tmp_path, "b.example")), nursery)
        await kept.wait_asked(2)
        kept.keeper.want((order(tmp_path, "b.example"),), nursery)
        await kept.wait_asked(3)
        nursery.cancel_scope.cancel()
    assert kept.asked[2][0] == "b.example"
