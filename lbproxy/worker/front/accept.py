"""Accepting clients on the reactor, and how listening sockets come and go with the table.

Knows listeners and their limits; nothing of what a client says. A socket that goes away is accepted from for a moment
more: control has seen to it that nobody begins a handshake there, and who is in one comes through.
"""

import errno
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import trio

from lbproxy.link.grid import WIDTH, Counter, Grid
from lbproxy.model import ListenerView, RoutingTable
from lbproxy.telemetry.events import AcceptPaused, AcceptResumed, Event, Notice, TlsFailed
from lbproxy.tls.contexts import ServerContexts
from lbproxy.tls.tls_socket import TlsSocket
from lbproxy.wire.headers import ClientFacts
from lbproxy.worker.front.admission import Admission, ClientConnection, NotAdmitted, ProxyHeaderStage, Stage
from lbproxy.worker.front.client_counts import NO_LIMIT, Cells, ClientCounts
from lbproxy.worker.front.handshake_turns import HandshakeTurns
from lbproxy.worker.front.peers import Peers
from lbproxy.worker.front.preface import PrefaceStage
from lbproxy.worker.front.server_name import ServerNameStage
from lbproxy.worker.front.tls import Handshake, rules_of
from lbproxy.worker.io.dead_peer import notice_dead_peer
from lbproxy.worker.io.reactor import NEVER, READ, Reactor

ACCEPT_BATCH = 32  # accepted in a row before others get their turn
QUEUE_MOST = 100_000  # more than a listening socket can have waiting
LEAVE_S = 0.3  # more than most round trips: for the last part of a handshake
PAUSE_S = 0.05  # out of descriptors, or at the limit: nobody tells us when another process has freed one
EXHAUSTED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
REFUSALS_S = 60.0
TOLD_PER_S = 10  # failed handshakes as events; the metric counts them all

# As plain ints: adding a member of an enum costs three times as much.
CONNECTIONS = Counter.CONNECTIONS.value
ACCEPTED = Counter.ACCEPTED.value

Open = Callable[[socket.socket, ListenerView, ClientFacts], None]
Admitting = Admission | Handshake


class Listening:
    """One of our listening sockets. Its settings may change while it is open."""

    def __init__(self, acceptor: "Acceptor", view: ListenerView, sock: socket.socket, *, by_name: bool) -> None:
        self._acceptor = acceptor
        self._sock = sock
        self._family = int(sock.family)
        self._paused = False
        self._leaves_at = NEVER
        self.deadline = self.queued_at = NEVER
        self.update(view, by_name=by_name)
        acceptor.reactor.register(sock.fileno(), READ, self)

    def update(self, view: ListenerView, *, by_name: bool) -> None:
        """`by_name`: there are routes that a host name decides."""
        settings = view.settings
        self.view = view
        notice_dead_peer(self._sock, view.settings.timeouts.idle_s)
        self.facts = Peers(settings).facts
        self._expects_header = settings.proxy_protocol == "accept"
        self._asks_name = by_name and settings.mode == "tcp" and settings.tls is None
        # None: a plain listener, whose clients go to a lane at once.
        self._most = settings.limits.connections_per_client
        takes_http2 = settings.mode == "http" and settings.tls is None and "h2c" in settings.protocols
        self._asks_preface = takes_http2 and "http/1.1" in settings.protocols
        self._admits: Callable[[socket.socket, ClientFacts], None] | None = None
        self._made: Callable[[int, int, int, int], socket.socket] = socket.socket
        if self._expects_header or self._asks_name or self._asks_preface:
            self._admits = self._admit
        elif settings.tls is not None:
            self._admits, self._made = self._secure, TlsSocket.accepted
        elif takes_http2:
            self._admits = self._open_http2
        elif self._most:
            self._admits = self._open_counted

    def on_ready(self, mask: int) -> None:
        self._accept(ACCEPT_BATCH)

    def on_deadline(self) -> None:
        """After a pause: try again. At the end of a leave: whoever has connected by now, and no more."""
        reactor = self._acceptor.reactor
        if reactor.now < self._leaves_at:
            reactor.arm_at(self, self._leaves_at)
            reactor.register(self._sock.fileno(), READ, self)
            self._accept(ACCEPT_BATCH)
            return
        try:
            self._accept(QUEUE_MOST)
        finally:
            self.close()

    def leave(self) -> None:
        reactor = self._acceptor.reactor
        self._leaves_at = reactor.now + LEAVE_S
        if not self._paused:  # else it tries once more before that
            reactor.arm_at(self, self._leaves_at)

    def close(self) -> None:
        reactor = self._acceptor.reactor
        reactor.unregister(self._sock.fileno())
        reactor.disarm(self)
        self._sock.close()
        self._acceptor.has_left(self)

    def _accept(self, most: int) -> None:
        acceptor, view = self._acceptor, self.view
        # Hot where a client makes a connection for each request. `accept` of the standard library is these two lines
        # with the family and the kind passed through their enums: 6 us instead of 4.
        accept: Callable[[], tuple[int, Any]] = self._sock._accept  # type: ignore[attr-defined]
        family = self._family
        for _ in range(most):
            try:
                if acceptor.is_full(view):
                    raise OSError(errno.EMFILE, "the listener's limit of connections is reached")
                fd, peer = accept()
                sock = self._made(family, socket.SOCK_STREAM, 0, fd)
            except BlockingIOError:
                break
            except OSError as exc:
                if exc.errno not in EXHAUSTED:
                    continue  # that client's trouble: it left while it was waiting
                self._pause(exc.strerror or str(exc))
                return
            sock.setblocking(False)
            if self._admits is None:
                acceptor.open(sock, view, self.facts(peer))
            else:
                self._admits(sock, self.facts(peer))
        if self._paused:
            self._paused = False
            acceptor.emit(AcceptResumed(view.settings.name))

    def _pause(self, why: str) -> None:
        if not self._paused:
            self._paused = True
            self._acceptor.emit(AcceptPaused(self.view.settings.name, why))
        self._acceptor.reactor.unregister(self._sock.fileno())
        self._acceptor.reactor.arm(self, PAUSE_S)

    def _admit(self, sock: socket.socket, facts: ClientFacts) -> None:
        """A PROXY header is believed from trusted peers only, and other peers have no business here."""
        stages: list[Stage] = []
        counted: ClientFacts | None = facts
        if self._expects_header:
            if not facts.trusted:
                sock.close()
                why = f"{facts.ip.decode() or 'a unix peer'} is not in trusted_proxies"
                self._acceptor.tell_refused(self.view, why)
                return
            stages.append(ProxyHeaderStage(self._announced))
        else:
            counted = self._count(sock, facts)
        if self._asks_name:
            stages.append(ServerNameStage())
        if self._asks_preface:
            stages.append(PrefaceStage())
        if counted is not None:
            self._acceptor.admit(sock, self.view, counted, stages)

    def adopted(self, facts: ClientFacts) -> Cells:
        is_counted = self._most and facts.ip and not facts.trusted
        return self._acceptor.clients.came(facts.ip, NO_LIMIT) if is_counted else ()

    def _secure(self, sock: socket.socket, facts: ClientFacts) -> None:
        if (counted := self._count(sock, facts)) is not None:
            self._acceptor.opened(self.view)
            self._acceptor.secure(sock, self.view, counted)

    def _open_counted(self, sock: socket.socket, facts: ClientFacts) -> None:
        if (counted := self._count(sock, facts)) is not None:
            self._acceptor.open(sock, self.view, counted)

    def _open_http2(self, sock: socket.socket, facts: ClientFacts) -> None:
        """Open a client of a plain listener that takes nothing but HTTP/2."""
        if (counted := self._count(sock, facts)) is not None:
            self._acceptor.opened(self.view)
            self._acceptor.open_admitted(ClientConnection(sock, self.view, counted, protocol="h2c"))

    def _count(self, sock: socket.socket, facts: ClientFacts) -> ClientFacts | None:
        """None: the client is let go of."""
        try:
            return self._counted(facts)
        except NotAdmitted as exc:
            sock.close()
            self._acceptor.tell_refused(self.view, str(exc))
            return None

    def _announced(self, ip: str, port: int) -> ClientFacts:
        """Raises NotAdmitted."""
        return self._counted(replace(self.facts((ip, port)), port=port))

    def _counted(self, facts: ClientFacts) -> ClientFacts:
        """Raises NotAdmitted where the client has all the connections that it may have. A trusted peer is no client:
        it has those of all its clients."""
        if not self._most or facts.trusted or not facts.ip:
            return facts
        counted = self._acceptor.clients.came(facts.ip, self._most)
        if not counted:
            raise NotAdmitted(f"{facts.ip.decode()} has {self._most} connections (limits.connections_per_client)")
        return replace(facts, counted=counted)


class Acceptor:
    """`open(sock, view, facts)` takes over each client of a plain listener, `open_admitted` those that came through the
    front door; tell `closed(view)` when one is gone."""

    def __init__(self, reactor: Reactor, grid: Grid, row: int, emit: Callable[[Event], None]) -> None:
        self.reactor = reactor
        self.emit = emit
        self.open: Open = _closed_at_once
        self.open_admitted: Callable[[ClientConnection], None] = lambda connection: connection.sock.close()
        self.note: Callable[..., None] = _not_counted  # Tally.note
        self.clients = ClientCounts(grid, row)
        self._connections = grid.summing(CONNECTIONS)
        self._values = grid.values
        self._row_base = grid.base(row, 0)
        self._listening: dict[int, Listening] = {}
        self._leaving: set[Listening] = set()
        self._admitting: set[Admitting] = set()
        self._contexts: dict[int, ServerContexts] = {}  # of TLS listeners, by key
        self.turns = HandshakeTurns(reactor)
        self._told_since, self._told = NEVER, 0
        self._refusals: dict[int, float] = {}  # when a refused client was last told of, by listener key
        self._one_has_left = trio.lowlevel.ParkingLot()

    def apply(self, table: RoutingTable, sockets: dict[int, socket.socket]) -> None:
        """The listeners of a new table: see `wait_left`. `sockets` are ours from now on, by listener key: of those that
        are new to us. Doubles are closed."""
        views, by_name = table.listeners, any(route.host is not None for route in table.routes)
        for view in views:
            self._follow_rules(view)
            known, sock = self._listening.get(view.key), sockets.get(view.key)
            if known is not None:
                known.update(view, by_name=by_name)
                if sock is not None:
                    sock.close()
            elif sock is not None:
                self._listening[view.key] = Listening(self, view, sock, by_name=by_name)
        present = {view.key for view in views}
        for key in [key for key in self._listening if key not in present]:
            self._contexts.pop(key, None)
            self._leave(key)

    def leave_all(self) -> None:
        self.stop_listening()
        for admission in list(self._admitting):  # it may be about to ask: as much time as a handshake gets
            admission.leave(LEAVE_S)

    def stop_listening(self) -> None:
        """See `wait_closed`. The clients at the front door have their time."""
        for key in list(self._listening):
            self._leave(key)
        for admission in list(self._admitting):
            if admission.is_idle:
                admission.leave(LEAVE_S)

    # The front door: clients that are not with a lane yet

    def admit(self, sock: socket.socket, view: ListenerView, facts: ClientFacts, stages: Sequence[Stage]) -> None:
        self.opened(view)
        self._admitting.add(Admission(self, sock, view, facts, stages))

    def secure(self, sock: socket.socket, view: ListenerView, facts: ClientFacts) -> None:
        """Begin the TLS handshake of a client that has been counted."""
        contexts = self._contexts.get(view.key)
        if contexts is None:
            sock.close()
            self.closed(view)
            self.clients.left(facts.counted)
            self.tell_refused(view, "there is no certificate")
            return
        self._admitting.add(Handshake(self, sock, view, facts, contexts))

    def use_certificates(self, key: int, contexts: ServerContexts) -> None:
        """Of a listener that is there, or comes with the next table. Handshakes that have begun go on with the ones
        before, and so do connections."""
        self._contexts[key] = contexts
        if key in self._listening:
            self._follow_rules(self._listening[key].view)

    def _follow_rules(self, view: ListenerView) -> None:
        if view.settings.tls is not None and view.key in self._contexts:
            self._contexts[view.key].follow(rules_of(view))

    @property
    def admitting(self) -> Sequence[Admitting]:
        """The clients at the front door, as of now."""
        return tuple(self._admitting)

    def admitted(self, admission: Admitting, connection: ClientConnection) -> None:
        self._admitting.discard(admission)
        if connection.view.settings.tls is not None and isinstance(admission, Admission):
            self.secure(connection.sock, connection.view, connection.facts)
        else:
            self.open_admitted(connection)
        self._tell_left()

    def not_admitted(self, admission: Admitting, why: str | None) -> None:
        self._admitting.discard(admission)
        self.closed(admission.view)
        self.clients.left(admission.facts.counted)
        if why is not None:
            self.tell_refused(admission.view, why)
        self._tell_left()

    def tell_refused(self, view: ListenerView, why: str) -> None:
        """At most once a minute for each listener."""
        if self.reactor.now >= self._refusals.get(view.key, float("-inf")) + REFUSALS_S:
            self._refusals[view.key] = self.reactor.now
            self.emit(Notice(f"listener {view.settings.name}: a client was let go of: {why}"))

    def tell_failed(self, failed: TlsFailed) -> None:
        """Anybody may send nonsense, so only the first of each second are told of."""
        if not 0 <= self.reactor.now - self._told_since < 1.0:
            self._told_since, self._told = self.reactor.now, 0
        self._told += 1
        if self._told <= TOLD_PER_S:
            self.emit(failed)

    def _tell_left(self) -> None:
        self._one_has_left.unpark_all()

    def _leave(self, key: int) -> None:
        listening = self._listening.pop(key)
        self._leaving.add(listening)
        listening.leave()

    @property
    def leaving(self) -> bool:
        """Clients may still come from a listener that goes."""
        return bool(self._leaving or self._admitting)

    @property
    def closing(self) -> bool:
        """A listener that goes is not closed yet."""
        return bool(self._leaving)

    async def wait_closed(self) -> None:
        """Until the listeners that go are closed, with everybody accepted: LEAVE_S."""
        while self._leaving:
            await self._one_has_left.park()

    def has_left(self, listening: Listening) -> None:
        self._leaving.discard(listening)
        self._tell_left()

    async def wait_left(self) -> None:
        """Until those that go are closed, with everybody accepted: LEAVE_S, if at all."""
        while self.leaving:
            await self._one_has_left.park()

    def close(self) -> None:
        """At once: nobody is accepted any more."""
        for listening in (*self._listening.values(), *self._leaving):
            listening.close()
        self._listening.clear()
        for admission in list(self._admitting):
            admission.close(None)

    def is_full(self, view: ListenerView) -> bool:
        return self._connections(view.cell) >= view.settings.limits.connections

    def opened(self, view: ListenerView) -> None:
        values, base = self._values, self._row_base + view.cell * WIDTH
        values[base + CONNECTIONS] += 1
        values[base + ACCEPTED] += 1

    def facts_of(self, view: ListenerView, ip: str, port: int) -> ClientFacts:
        """The facts of a client that another worker has accepted. `port`: announced by a PROXY header, else 0.

        Raises LookupError, ValueError."""
        if (listening := self._listening.get(view.key)) is None:
            raise LookupError(f"listener {view.settings.name} is not open here")
        facts = listening.facts((ip, 0) if ip else "")
        return replace(facts, port=port) if port else facts

    def adopted(self, view: ListenerView, facts: ClientFacts) -> Cells:
        """Another worker has accepted the client. Returns where it counts here."""
        self._values[self._row_base + view.cell * WIDTH + CONNECTIONS] += 1
        return self._listening[view.key].adopted(facts)

    def closed(self, view: ListenerView) -> None:
        self._values[self._row_base + view.cell * WIDTH + CONNECTIONS] -= 1


def _closed_at_once(sock: socket.socket, view: ListenerView, facts: ClientFacts) -> None:
    sock.close()


def _not_counted(name: str, *labels: str) -> None:
    pass
