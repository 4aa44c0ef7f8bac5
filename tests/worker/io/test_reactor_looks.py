"""Deadlines that are far away are looked at meanwhile: who works his out only then is asked in time."""

from lbproxy.worker.io.reactor import AT_LOOK, LOOK_S, NEVER, Reactor


class Far:
    def __init__(self) -> None:
        self.deadline = self.queued_at = NEVER
        self.fired = 0

    def on_deadline(self) -> None:
        self.fired += 1


def test_a_far_deadline_is_looked_at_meanwhile_and_fires_at_its_time() -> None:
    reactor, item = Reactor(lambda event: None), Far()
    reactor.arm(item, 3.5 * LOOK_S)
    for looks in range(1, 4):
        reactor.now = looks * LOOK_S
        reactor.fire_due()
        assert item.queued_at <= reactor.now + LOOK_S
    assert item.fired == 0
    reactor.now = 3.5 * LOOK_S
    reactor.fire_due()
    assert item.fired == 1


def test_who_says_at_look_is_asked_within_that_time() -> None:
    reactor, item = Reactor(lambda event: None), Far()
    reactor.arm(item, 10 * LOOK_S)
    reactor.now = LOOK_S - 1
    item.deadline = AT_LOOK
    reactor.fire_due()
    assert item.fired == 0
    reactor.now = LOOK_S
    reactor.fire_due()
    assert item.fired == 1
