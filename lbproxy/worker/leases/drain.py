"""The leases of one backend in one worker, and what a drain does to each kind of them (DESIGN.md 5).

Knows kinds, ages and graces; whoever made a lease knows how it is told goodbye and how it is cut. Time is an argument:
no clock, no trio, no sockets. Adding and removing are one set operation each, since every request does both; looking
for deadlines walks all leases, but only while the backend drains.
"""

from bisect import insort
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import replace

from lbproxy.model import BackendView, LeaseKind
from lbproxy.policy.goodbye import cut_at, schedule
from lbproxy.settings import DrainSettings
from lbproxy.worker.tally import Methods

ECHO_SLACK_S = 0.5
STALLED_S = 5.0  # a transfer that moved nothing for so long counts as a request
LEAST_STREAM_S = 0.25  # with no time at all, not even a stream between two events could end properly
_AT_ONCE = float("-inf")
_NEVER = float("inf")

_REQUEST = LeaseKind.REQUEST
_TRANSFER = LeaseKind.TRANSFER
_STREAM = LeaseKind.STREAM
_WEBSOCKET = LeaseKind.WEBSOCKET
_TCP = LeaseKind.TCP


class Lease:
    """One piece of client work that holds one backend. Its owner writes the public attributes; `kind` only by change().

    `cut()` ends it at once: what its owner says in `on_cut`. `say_goodbye(window_ends)` starts a polite end; up to that
    clock reading a message (an event) in hand may still be finished. It is called again if the window becomes shorter.
    None: this lease cannot be told anything, it only finishes or is cut.

    It may be used again when it is over. Router.claim() writes what is held, and since when.
    """

    __slots__ = (
        "backend",
        "closed_at",
        "drain",
        "ends",
        "kind",
        "leases",
        "moved_at",
        "on_cut",
        "overdue",
        "say_goodbye",
        "started",
    )

    backend: BackendView
    kind: LeaseKind
    leases: "Leases"  # the backend's; it is among them while it is held
    moved_at: float  # the last byte, either way: kept up by transfers and streams only
    started: float

    def __init__(self) -> None:
        self.on_cut: Callable[[], None] = _nobody
        self.say_goodbye: Callable[[float], None] | None = None
        self.closed_at: float | None = None  # when our Close went to the client
        self.ends: float | None = None  # told goodbye: the window's end it was given
        self.drain: DrainSettings | None = None  # in force when it was told; its goodbye_s is the effective one
        self.overdue = False  # its grace is over, and it has been counted: by who asks due(), or by its owner

    def cut(self) -> None:
        self.on_cut()

    def forget(self) -> None:
        """The lease is over, and does not keep its holder alive."""
        self.on_cut = _nobody
        self.say_goodbye = None


def _time_of(entry: tuple[float, Lease]) -> float:
    return entry[0]


def _nobody() -> None:
    """Cuts what is over, or has not begun."""


class Leases:
    """Who holds this backend. A drain begins, and is over when nobody is left; or it is taken back.

    `counters`: where the router counts them. `methods`: the series of the pool's exchanges in the express lane.
    """

    __slots__ = ("_drain", "_ends", "_farewells", "_goodbye_s", "_to_tell", "backend", "counters", "held", "methods")

    def __init__(self, backend: BackendView, counters: int, methods: Methods) -> None:
        self.backend = backend
        self.counters = counters
        self.methods = methods
        self.held: set[Lease] = set()
        self._drain: DrainSettings | None = None
        self._ends: dict[LeaseKind, float] = {}  # clock readings; empty while not draining
        self._goodbye_s = 0.0
        self._to_tell: deque[tuple[float, Lease]] = deque()  # in the order of their times
        self._farewells = False  # somebody was told: has an end even if the drain is taken back

    def __len__(self) -> int:
        return len(self.held)

    @property
    def empty(self) -> bool:
        return not self.held

    @property
    def draining(self) -> bool:
        return self._drain is not None

    @property
    def drain(self) -> DrainSettings | None:
        """The graces in force; None while not draining."""
        return self._drain

    def hand_on(self, lease: Lease) -> Lease:
        """Another one in its place, with all that is known of it."""
        other = Lease()
        other.leases, other.backend, other.kind = self, lease.backend, lease.kind
        other.started, other.moved_at, other.overdue = lease.started, lease.moved_at, lease.overdue
        self.held.remove(lease)
        self.held.add(other)
        return other

    def remove(self, lease: Lease) -> bool:
        """True if this ended a drain: nobody is left. Removing twice is no error (and ends nothing twice)."""
        if self._drain is None or lease not in self.held:
            self.held.discard(lease)
            return False
        self.held.remove(lease)
        return not self.held

    def change(
        self,
        lease: Lease,
        kind: LeaseKind,
        say_goodbye: Callable[[float], None] | None = None,
        *,
        tell_at: float = _AT_ONCE,
    ) -> None:
        """The kind of a lease has become known.

        A lease that turns long-lived on a draining backend is told at the next tell(), or at `tell_at`.
        """
        lease.kind = kind
        lease.say_goodbye = say_goodbye
        if kind in self._ends and say_goodbye is not None:
            insort(self._to_tell, (tell_at, lease), key=_time_of)

    def begin(
        self, drain: DrainSettings, now: float, phase: float = 0.0, *, spared: Collection[LeaseKind] = ()
    ) -> None:
        """Every grace counts from now. Beginning again (the worker stops, too) shortens graces, never extends them.

        `phase` in [0, 1): see policy.goodbye.schedule(). `spared`: kinds that do not drain yet.
        """
        ends = {
            _REQUEST: now + drain.request_s,
            _TRANSFER: now + max(drain.transfer_s, drain.request_s),
            _STREAM: now + max(drain.stream_s, LEAST_STREAM_S),
            _WEBSOCKET: now + drain.websocket_s,
            _TCP: now + drain.tcp_s,
        }
        self._goodbye_s = drain.goodbye_s if self._drain is None else min(self._goodbye_s, drain.goodbye_s)
        sooner = {kind: min(end, self._ends.get(kind, end)) for kind, end in ends.items() if kind not in spared}
        self._ends |= sooner
        self._drain = replace(drain, goodbye_s=self._goodbye_s)
        # A stream is cut at its end without further grace, so the last ones are told a little before it.
        stream_s = max(0.0, self._ends[_STREAM] - now)
        spread = [
            *((_AT_ONCE, lease) for lease in self.held if self._sooner(lease)),
            *self._spread(_STREAM, now, stream_s - min(self._goodbye_s, stream_s / 2), phase),
        ]
        if _WEBSOCKET in self._ends:
            spread += self._spread(_WEBSOCKET, now, max(0.0, self._ends[_WEBSOCKET] - now), phase)
        spread.sort(key=lambda entry: entry[0])
        self._to_tell = deque(spread)

    def _spread(self, kind: LeaseKind, now: float, window_s: float, phase: float) -> list[tuple[float, Lease]]:
        to_tell = [
            lease for lease in self.held if lease.kind is kind and lease.say_goodbye is not None and lease.ends is None
        ]
        # A stream that has said nothing for a while goes first; of WebSockets, whose bytes nobody times, the oldest.
        to_tell.sort(key=lambda lease: lease.moved_at if kind is _STREAM else lease.started)
        offsets = schedule(len(to_tell), window_s, phase)
        return [(now + offset, lease) for offset, lease in zip(offsets, to_tell, strict=True)]

    def _sooner(self, lease: Lease) -> bool:
        """Whether the lease was told before, with a window that is now shorter."""
        return lease.ends is not None and self._ends.get(lease.kind, _NEVER) < lease.ends

    def rest(self, now: float) -> DrainSettings | None:
        """The drain, with the time that is left of each grace; None while not draining."""
        if self._drain is None:
            return None
        left_s = {kind: max(0.0, self._ends.get(kind, _NEVER) - now) for kind in LeaseKind}
        drain = self._drain
        return replace(
            drain,
            request_s=min(drain.request_s, left_s[_REQUEST]),
            transfer_s=min(drain.transfer_s, left_s[_TRANSFER]),
            stream_s=min(drain.stream_s, left_s[_STREAM]),
            websocket_s=min(drain.websocket_s, left_s[_WEBSOCKET]),
            tcp_s=min(drain.tcp_s, left_s[_TCP]),
        )

    def planned(self, lease: Lease) -> float | None:
        """The clock reading at which the lease is told goodbye; None: nothing is planned."""
        return next((at for at, one in self._to_tell if one is lease), None)

    def take_back(self) -> None:
        """The backend serves again. Who was told goodbye still goes; for everybody else it never happened."""
        self._drain = None
        self._ends = {}
        self._to_tell.clear()

    def dismiss(self, lease: Lease, drain: DrainSettings, now: float) -> bool:
        """Say goodbye to one lease as a drain by `drain` would, at once. False: this lease can only be cut."""
        if lease.say_goodbye is None:
            return False
        if lease.ends is None:
            if self._drain is None:
                self._goodbye_s = drain.goodbye_s
            window_s = drain.websocket_s if lease.kind is _WEBSOCKET else max(drain.stream_s, LEAST_STREAM_S)
            lease.ends = min(now + window_s, self._ends.get(lease.kind, _NEVER))
            lease.drain = self._drain or drain
            self._farewells = True
            lease.say_goodbye(lease.ends)
        return True

    def tell(self, now: float) -> int:
        """Say goodbye to those whose turn has come: once, and again if the window became shorter. Returns how many."""
        told = 0
        while self._to_tell and self._to_tell[0][0] <= now:
            lease = self._to_tell.popleft()[1]
            if lease.say_goodbye is None or lease not in self.held:
                continue
            if lease.ends is None or self._sooner(lease):
                lease.ends = self._ends[lease.kind]
                lease.drain = self._drain
                self._farewells = True
                told += 1
                lease.say_goodbye(lease.ends)
        return told

    def due(self, now: float) -> list[Lease]:
        """Those whose grace is over, each once: the caller cuts and counts them. They stay until they are removed."""
        if self._drain is None and not self._farewells:
            return []
        over = [lease for lease in self.held if not lease.overdue and self._end(lease) <= now]
        for lease in over:
            lease.overdue = True
        return over

    def next_due(self, now: float) -> float | None:
        """When tell() or due() has something to do, as far as is known now; None: nothing to wait for."""
        if self._drain is None and not self._farewells:
            return None
        times = [self._end(lease) for lease in self.held if not lease.overdue]
        if self._to_tell:
            times.append(self._to_tell[0][0])
        first = min(times, default=_NEVER)
        return None if first == _NEVER else max(first, now)

    def left_s(self, lease: Lease, now: float) -> float | None:
        """The rest of its grace, were nothing more to move; None: it does not drain, and was told nothing."""
        end = self._end(lease)
        return None if end == _NEVER else max(0.0, end - now)

    def _end(self, lease: Lease) -> float:
        """When its grace is over, were nothing more to move."""
        kind = lease.kind
        end = self._ends.get(kind, _NEVER)
        if lease.ends is not None and lease.ends < end:
            end = lease.ends
        if kind is _WEBSOCKET:
            # The relay ends by itself when a client does not answer our Close: that is a goodbye, not a cut.
            waits_s = self._goodbye_s if lease.closed_at is None else self._goodbye_s + ECHO_SLACK_S
            return cut_at(end, waits_s, lease.closed_at)
        if kind is _TRANSFER:
            return min(end, max(self._ends.get(_REQUEST, _NEVER), lease.moved_at + STALLED_S))
        return end
