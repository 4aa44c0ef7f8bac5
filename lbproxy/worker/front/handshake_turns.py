"""Who may make a TLS handshake now: so many at once, so many of one address, and a few in one turn of the reactor.

A handshake costs the worker as much as twenty requests, and a client decides when it comes. What has to wait keeps its
place; addresses take turns, so a flood from one of them delays itself. A client that has begun and then says nothing
holds a place for PATIENCE_S at most, as long as another one waits for it. Knows no TLS.
"""

from collections import deque
from typing import Protocol

from lbproxy.wire.headers import ClientFacts
from lbproxy.worker.io.reactor import NEVER, Reactor

MOST = 64
MOST_OF_ADDRESS = 8
AT_ONCE = 4  # begin in one batch or turn: about 2 ms, for which other clients wait
PATIENCE_S = 1.0


class Shaking(Protocol):
    facts: ClientFacts

    def begin(self) -> None: ...
    def abort(self) -> None: ...
    def give_way(self) -> None:
        """End it: another client waits. To tell `done` is part of that."""


class HandshakeTurns:
    """Each handshake `ask`s when its ClientHello is there, and is told to `begin`: at once, or later."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._running: dict[Shaking, float] = {}  # when it began; the oldest first
        self._of_address: dict[bytes, int] = {}  # running
        self._waiting: dict[bytes, deque[Shaking]] = {}  # by address; the first is the next to have a turn
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
        self._waiting.setdefault(one.facts.ip, deque()).append(one)
        self._plan()

    def done(self, one: Shaking) -> None:
        """It is over, whatever became of it, and wherever it stood."""
        address = one.facts.ip
        if self._running.pop(one, None) is not None:
            self._of_address[address] -= 1
            if not self._of_address[address]:
                del self._of_address[address]
        elif (queue := self._waiting.get(address)) is not None and one in queue:
            queue.remove(one)
            if not queue:
                del self._waiting[address]
        if self._waiting:
            self._plan()
        elif self.deadline != NEVER:
            self._reactor.disarm(self)

    @property
    def waiting(self) -> int:
        return sum(map(len, self._waiting.values()))

    def _has_place(self, address: bytes) -> bool:
        """The peers of a unix socket have no address: they are not held to be one."""
        return len(self._running) < MOST and (not address or self._of_address.get(address, 0) < MOST_OF_ADDRESS)

    def _start(self, one: Shaking) -> None:
        self._running[one] = self._reactor.now
        self._of_address[one.facts.ip] = self._of_address.get(one.facts.ip, 0) + 1
        try:
            one.begin()
        except Exception:  # a mistake of ours: it must not keep its place
            one.abort()
            raise

    def _plan(self) -> None:
        """Somebody waits: the next turn if there is a place, else when a place will have been held for too long."""
        if self._next_address() is not None:
            if not self._is_planned:
                self._is_planned = True
                self._reactor.defer(self._take_turn)
        elif self.deadline == NEVER:
            self._reactor.arm_at(self, min(self._running[one] for one in self._blocking()) + PATIENCE_S)

    def _take_turn(self) -> None:
        self._is_planned = False
        for _ in range(AT_ONCE):
            address = self._next_address()
            if address is None:
                break
            queue = self._waiting.pop(address)
            one = queue.popleft()
            if queue:
                self._waiting[address] = queue  # behind all other addresses
            self._start(one)
        if self._waiting:
            self._plan()

    def _next_address(self) -> bytes | None:
        """The first that has a place. At most MOST / MOST_OF_ADDRESS are passed over."""
        if len(self._running) >= MOST:
            return None
        return next((address for address in self._waiting if self._has_place(address)), None)

    def _blocking(self) -> list[Shaking]:
        """Those that hold the places that are waited for, the oldest first."""
        is_full = len(self._running) >= MOST
        return [one for one in self._running if is_full or one.facts.ip in self._waiting]

    def on_deadline(self) -> None:
        """As many of the oldest as others wait give way."""
        until = self._reactor.now - PATIENCE_S
        for one in self._blocking()[: self.waiting]:
            if self._running[one] <= until:
                one.give_way()
        if self._waiting:
            self._plan()
