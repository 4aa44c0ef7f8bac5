"""Turns of handshakes, with a reactor that the test turns by hand."""

from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lbproxy.wire.headers import ClientFacts
from lbproxy.worker.front.handshake_turns import (
    AT_ONCE,
    LATE_S,
    LEAST_PATIENCE_S,
    MOST,
    MOST_OF_ADDRESS,
    PATIENCE_S,
    HandshakeTurns,
)
from lbproxy.worker.io.reactor import NEVER


class Reactor:
    def __init__(self) -> None:
        self.now = 100.0
        self.deferred: list[Callable[[], None]] = []
        self.armed: Any = None

    def defer(self, callback: Callable[[], None]) -> None:
        self.deferred.append(callback)

    def guarded(self, callback: Callable[[], None]) -> None:
        callback()

    def arm_at(self, item: Any, deadline: float) -> None:
        item.deadline, self.armed = deadline, item

    def disarm(self, item: Any) -> None:
        item.deadline, self.armed = NEVER, None

    def turn(self, later_s: float = 0.0) -> None:
        """The next batch is `later_s` later; what was deferred is done behind it."""
        self.now += later_s
        if self.armed is not None and self.armed.deadline <= self.now:
            item, self.armed = self.armed, None
            item.deadline = NEVER
            item.on_deadline()
        deferred, self.deferred = self.deferred, []
        for callback in deferred:
            callback()


class Bench:
    def __init__(self) -> None:
        self.reactor = Reactor()
        self.turns = HandshakeTurns(self.reactor)  # type: ignore[arg-type]
        self.begun: list[Client] = []
        self.gave_way: list[Client] = []

    def come(self, count: int, address: bytes = b"10.0.0.1") -> "list[Client]":
        clients = [Client(self, address) for _ in range(count)]
        for client in clients:
            self.turns.ask(client)
        return clients

    def all_turns(self) -> None:
        while self.reactor.deferred:
            self.reactor.turn(0.001)


class Client:
    def __init__(self, bench: Bench, address: bytes) -> None:
        self.facts = ClientFacts(address, False, b"https")
        self._bench = bench

    def begin(self) -> None:
        self._bench.begun.append(self)

    def abort(self) -> None:
        self._bench.turns.done(self)

    def give_way(self) -> None:
        self._bench.gave_way.append(self)
        self._bench.turns.done(self)


def test_the_first_begin_at_once_and_the_next_ones_turn_by_turn() -> None:
    bench = Bench()
    clients = bench.come(MOST_OF_ADDRESS)
    assert bench.begun == clients[:AT_ONCE]
    bench.reactor.turn()
    assert bench.begun == clients[: 2 * AT_ONCE]
    assert not bench.turns.waiting
    assert not bench.reactor.deferred
    assert bench.reactor.armed is None


def test_in_the_next_batch_others_begin_at_once() -> None:
    bench = Bench()
    bench.come(AT_ONCE)
    bench.reactor.turn(0.001)
    (late,) = bench.come(1)
    assert bench.begun[-1] is late


def test_of_one_address_only_some_run_and_another_address_need_not_wait_for_it() -> None:
    bench = Bench()
    flood = bench.come(100)
    bench.all_turns()
    assert bench.begun == flood[:MOST_OF_ADDRESS]
    (other,) = bench.come(1, b"10.0.0.2")
    bench.all_turns()
    assert bench.begun[-1] is other
    bench.turns.done(flood[0])
    bench.all_turns()
    assert bench.begun[-1] is flood[MOST_OF_ADDRESS]


def test_places_that_become_free_in_one_batch_are_taken_in_it_but_only_so_many() -> None:
    bench = Bench()
    flood = bench.come(3 * MOST_OF_ADDRESS)
    bench.all_turns()
    bench.reactor.now += 0.001
    for client in flood[:MOST_OF_ADDRESS]:
        bench.turns.done(client)
    assert bench.begun == flood[: MOST_OF_ADDRESS + AT_ONCE]
    bench.reactor.turn()
    assert bench.begun == flood[: 2 * MOST_OF_ADDRESS]


def test_addresses_take_turns() -> None:
    bench = Bench()
    bench.come(AT_ONCE, b"10.0.0.9")  # the batch is full
    bench.come(3, b"10.0.0.1")
    bench.come(1, b"10.0.0.2")
    bench.come(2, b"10.0.0.3")
    bench.all_turns()
    order = [client.facts.ip[-1:] for client in bench.begun[AT_ONCE:]]
    assert order == [b"1", b"2", b"3", b"1", b"3", b"1"]


def test_there_is_a_most_for_all_addresses_together() -> None:
    bench = Bench()
    for number in range(MOST):
        bench.come(2, b"10.0.1.%d" % number)
    bench.all_turns()
    assert len(bench.begun) == MOST
    bench.turns.done(bench.begun[5])
    bench.all_turns()
    assert len(bench.begun) == MOST + 1


def test_the_peers_of_a_unix_socket_are_not_one_address() -> None:
    bench = Bench()
    bench.come(MOST, b"")
    bench.all_turns()
    assert len(bench.begun) == MOST


def test_while_others_wait_a_handshake_that_stands_still_gives_way() -> None:
    bench = Bench()
    still = bench.come(MOST_OF_ADDRESS)
    bench.all_turns()
    bench.reactor.turn(10)
    assert not bench.gave_way, "nobody waits"
    bench.come(2, b"10.0.0.2")
    late = bench.come(2)
    bench.reactor.turn(0.01)
    assert bench.gave_way == still[:2], "the oldest of that address, one for each that waits"
    assert bench.begun[-2:] == late
    bench.reactor.turn(10)
    assert bench.gave_way == still[:2]


def test_a_handshake_has_its_patience_before_it_gives_way() -> None:
    bench = Bench()
    still = bench.come(MOST_OF_ADDRESS)
    bench.all_turns()
    (late,) = bench.come(1)
    bench.reactor.turn(PATIENCE_S / 2)
    assert not bench.gave_way
    bench.reactor.turn(PATIENCE_S / 2 + 0.01)
    bench.all_turns()
    assert bench.gave_way == still[:1]
    assert bench.begun[-1] is late


def test_when_all_places_are_held_any_of_the_oldest_gives_way() -> None:
    bench = Bench()
    for number in range(MOST // MOST_OF_ADDRESS):
        bench.come(MOST_OF_ADDRESS, b"10.0.1.%d" % number)
        bench.all_turns()
    oldest = bench.begun[0]
    (late,) = bench.come(1, b"10.0.0.2")
    bench.reactor.turn(2 * PATIENCE_S)
    bench.all_turns()
    assert bench.gave_way == [oldest]
    assert bench.begun[-1] is late


def test_where_many_wait_patience_is_short_and_soon_the_last_goes_first() -> None:
    bench = Bench()
    bench.come(500)
    bench.all_turns()
    for _ in range(30):
        bench.reactor.turn(0.05)
    assert len(bench.begun) > MOST_OF_ADDRESS * 8, "a place is held for a tenth of a second"
    (late,) = bench.come(1)
    bench.reactor.turn(LEAST_PATIENCE_S + 0.01)
    bench.all_turns()
    assert late in bench.begun


def test_of_many_addresses_the_last_one_goes_first_when_the_first_is_late() -> None:
    bench = Bench()
    for number in range(600):
        bench.come(1, b"%d" % number)
    for _ in range(15):
        bench.reactor.turn(0.05)
    assert [client.facts.ip for client in bench.begun] == [b"%d" % number for number in range(len(bench.begun))]
    bench.reactor.turn(LATE_S)
    (last,) = bench.come(1, b"last")
    bench.reactor.turn(LEAST_PATIENCE_S + 0.01)
    bench.all_turns()
    assert last in bench.begun


def test_one_that_leaves_the_queue_is_forgotten_and_nothing_stays() -> None:
    bench = Bench()
    clients = bench.come(MOST_OF_ADDRESS + 2)
    bench.all_turns()
    assert bench.turns.waiting == 2
    bench.turns.done(clients[-1])
    bench.turns.done(clients[-2])
    assert bench.reactor.armed is None
    for client in clients[:MOST_OF_ADDRESS]:
        bench.turns.done(client)
        bench.turns.done(client)
    assert (bench.turns._running, bench.turns._of_address, bench.turns._waiting) == ({}, {}, {})


STEPS = st.lists(
    st.tuples(st.sampled_from(["come", "done", "turn", "later"]), st.integers(0, 30), st.integers(0, 5)), max_size=80
)


@given(STEPS)
def test_whatever_happens_the_limits_hold_and_nobody_is_forgotten(steps: list[tuple[str, int, int]]) -> None:
    bench, alive = Bench(), []
    for what, number, address in steps:
        if what == "come":
            alive += bench.come(number, b"10.0.0.%d" % address if address else b"")
        elif what == "done" and alive:
            bench.turns.done(alive.pop(number % len(alive)))
        else:
            bench.reactor.turn(number / 10 if what == "later" else 0.0)
        alive = [client for client in alive if client not in bench.gave_way]
        running = list(bench.turns._running)
        assert len(running) <= MOST
        for source in {client.facts.ip for client in running} - {b""}:
            assert sum(client.facts.ip == source for client in running) <= MOST_OF_ADDRESS
        queued = [waiter for queue in bench.turns._waiting.values() for waiter, _ in queue]
        assert len(queued) == bench.turns.waiting
        assert {*running, *queued} == {*alive}
        assert not queued or bench.reactor.deferred or bench.reactor.armed is not None, "nobody would call them"
    for _ in range(200):  # those that have begun stand still: the others get their turn all the same
        bench.reactor.turn(PATIENCE_S)
        bench.all_turns()
    assert not bench.turns.waiting
