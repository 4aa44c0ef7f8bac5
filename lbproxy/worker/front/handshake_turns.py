"""Who may make a TLS handshake now: so many at once, so many of one address, and a few in one turn of the reactor.

A handshake costs the worker as much as twenty requests, and a client decides when it comes. What has to wait keeps its
place; addresses take turns, so a flood from one of them delays itself. A client that has begun and then stands still
gives way to others that wait: after PATIENCE_S, or sooner where many wait, so that a place is free for the last of them
within about a second. If the first has waited for longer than that all the same, the last goes first: most of the
others have not come to be served. Knows no TLS.
"""

from collections import deque
from typing import Protocol

from lbproxy.wire.headers import ClientFacts
from lbproxy.worker.io.reactor import NEVER, Reactor

MOST = 64
MOST_OF_ADDRESS = 8
AT_ONCE = 4  # begin in one batch or turn: about 2 ms, for which other clients wait
PATIENCE_S, LEAST_PATIENCE_S = 1.0, 0.1  # more than a round trip, or clients far away never get in
LATE_S = 1.0


class Shaking(Protocol):
    facts: ClientFacts

    def begin(self) -> None:
        """If that fails by a mistake of ours, the reactor tells it to `abort`."""

    def give_way(self) -> None:
        """End it: another client waits. To tell `done` is part of that."""


class HandshakeTurns:
    """Each handshake `ask`s when its ClientHello is there, and is told to `begin`: at once, or later."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._running: dict[Shaking, float] = {}  # when it began; the oldest first
        self._of_address: dict[bytes, int] = {}  # running
        # By address, with the time since when; the first address is the next to have a turn.
        self._waiting: dict[bytes, deque[tuple[Shaking, float]]] = {}
        self.waiting = 0
        self._begun_at = NEVER
        self._begun = 0  # in the batch that began at `_begun_at`
        self._is_planned = False
        self.deadline = self.queued_at = NEVER

    def ask(self, one: Shaking) -> None:
        now = self._reactor.now
        if now != self._begun_at:
            self._begun_at, self._begun = now, 0
        if self._begun < AT_ONCE and not self._waiting and self._has_place(one.facts.ip):
            self._begun += 1
            self._start(one)
            return
        self._waiting.setdefault(one.facts.ip, deque()).append((one, now))
        self.waiting += 1
        if not self._is_planned:
            self._plan()

    def done(self, one: Shaking) -> None:
        """A handshake is over, whatever became of it, and wherever it stood."""
        address = one.facts.ip
        if self._running.pop(one, None) is not None:
            self._of_address[address] -= 1
            if not self._of_address[address]:
                del self._of_address[address]
        elif (queue := self._waiting.get(address)) is not None:
            kept = deque(waiter for waiter in queue if waiter[0] is not one)
            self.waiting -= len(queue) - len(kept)
            if kept:
                self._waiting[address] = kept
            else:
                del self._waiting[address]
        if self._waiting:
            if not self._is_planned:
                self._go_on()
        elif self.deadline != NEVER:
            self._reactor.disarm(self)

    def _go_on(self) -> None:
        """A place is free: the next begins in this batch, if this batch may begin one more. To defer each of them costs
        a trip through Trio's loop for a few."""
        now = self._reactor.now
        if now != self._begun_at:
            self._begun_at, self._begun = now, 0
        if self._begun < AT_ONCE and (address := self._next_address()) is not None:
            self._begun += 1
            self._start(self._take(address))
        elif self._waiting:
            self._plan()

    def _has_place(self, address: bytes) -> bool:
        """The peers of a unix socket have no address: they are not held to be one."""
        return len(self._running) < MOST and (not address or self._of_address.get(address, 0) < MOST_OF_ADDRESS)

    def _start(self, one: Shaking) -> None:
        self._running[one] = self._reactor.now
        self._of_address[one.facts.ip] = self._of_address.get(one.facts.ip, 0) + 1
        self._reactor.guarded(one.begin)  # aborted after a mistake of ours, it does not keep its place

    def _plan(self) -> None:
        """Somebody waits: the next turn if there is a place, else a look whether one has been held for too long."""
        if self._next_address() is not None:
            self._is_planned = True
            self._reactor.defer(self._take_turn)
        elif self.deadline == NEVER:  # not anew for each that comes, although patience gets shorter with it
            at = min(self._running[one] + self._patience_s(one) for one in self._blocking())
            self._reactor.arm_at(self, min(at, self._reactor.now + LEAST_PATIENCE_S))

    def _take_turn(self) -> None:
        self._is_planned = False
        for _ in range(AT_ONCE):
            address = self._next_address()
            if address is None:
                break
            self._start(self._take(address))
        if self._waiting and not self._is_planned:
            self._plan()

    def _take(self, address: bytes) -> Shaking:
        """The next of this address."""
        queue = self._waiting.pop(address)
        one, _ = queue.pop() if self._is_late(queue) else queue.popleft()
        self.waiting -= 1
        if queue:
            self._waiting[address] = queue  # behind all other addresses
        return one

    def _is_late(self, queue: deque[tuple[Shaking, float]]) -> bool:
        return self._reactor.now - queue[0][1] > LATE_S

    def _next_address(self) -> bytes | None:
        """The first that has a place; the last, where the first is late. A few are passed over at most: those that hold
        MOST_OF_ADDRESS each."""
        if len(self._running) >= MOST or not self._waiting:
            return None
        is_late = self._is_late(next(iter(self._waiting.values())))
        order = reversed(self._waiting) if is_late else iter(self._waiting)
        return next((address for address in order if self._has_place(address)), None)

    def _blocking(self) -> list[Shaking]:
        """The handshakes that hold the places that are waited for, the oldest first."""
        is_full = len(self._running) >= MOST
        return [one for one in self._running if is_full or one.facts.ip in self._waiting]

    def _patience_s(self, one: Shaking) -> float:
        """How long this one may hold its place."""
        if len(self._running) >= MOST:
            share = MOST / self.waiting
        else:
            share = MOST_OF_ADDRESS / len(self._waiting[one.facts.ip])
        return max(LEAST_PATIENCE_S, min(1.0, share) * PATIENCE_S)

    def on_deadline(self) -> None:
        """As many of the oldest handshakes give way as others wait."""
        now = self._reactor.now
        blocking = self._blocking()[: self.waiting]
        for one in [one for one in blocking if self._running[one] + self._patience_s(one) <= now]:
            one.give_way()
        if self._waiting and not self._is_planned:
            self._plan()
