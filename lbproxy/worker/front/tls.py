"""The TLS handshake of a client: a stage of the front door, behind a PROXY header and before a lane.

The ClientHello is looked at before OpenSSL reads it: it decides the certificate, a client without a protocol of ours is
told so (alert 120), and plain HTTP gets a sentence. Bounded by `timeouts.header`. A handshake that fails is an event of
level debug; a client that goes away is none. Knows no lane and no HTTP.
"""

import select
import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from lbproxy.model import ListenerView
from lbproxy.telemetry.events import TlsFailed
from lbproxy.tls.contexts import ServerContexts, ServerRules
from lbproxy.tls.tls_socket import HandshakeFailed, PeerGone, TlsSocket, Waits
from lbproxy.wire.client_certificate import certificate_lines
from lbproxy.wire.client_hello import (
    MOST_BYTES,
    ClientHello,
    ClientHelloReader,
    NotClientHello,
    Spoken,
    needs_no_look,
)
from lbproxy.wire.headers import ClientFacts
from lbproxy.worker.front.admission import ClientConnection
from lbproxy.worker.front.handshake_turns import HandshakeTurns
from lbproxy.worker.io.reactor import EDGE, NEVER, READ, WRITE, Reactor

LINGER_S = 1.0  # the last words of a failed handshake are not lost to what the client still sends
LAST_S = 2.0  # more than two round trips to anywhere
DROPPED_AT_ONCE_BYTES = 64 * 1024
PEEK = int(socket.MSG_PEEK)
ANY_HELLO = ClientHello(None, None, ())  # nothing in it decides anything
# RFC 7301, 3.2: a fatal alert, no_application_protocol, in a record of its own.
NO_PROTOCOL = b"\x15\x03\x01\x00\x02\x02\x78"
_SENTENCE = b"400 Bad Request: this port speaks HTTPS, and the request came as plain HTTP.\n"
PLAIN_HTTP = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n"
    b"Cache-Control: no-store\r\nConnection: close\r\n\r\n%b" % (len(_SENTENCE), _SENTENCE)
)

# Results of a handshake, as the metric names them.
OK, RESUMED, FAILED, GONE = "ok", "resumed", "failed", "gone"


class Owner(Protocol):
    """The acceptor: it counts the connections, and passes them on."""

    reactor: Reactor
    turns: HandshakeTurns
    note: Callable[..., None]

    def tell_failed(self, failed: TlsFailed) -> None: ...
    def admitted(self, admission: "Handshake", connection: ClientConnection) -> None: ...
    def not_admitted(self, admission: "Handshake", why: str | None) -> None: ...


def rules_of(view: ListenerView) -> ServerRules:
    """A tcp listener offers no protocol by ALPN: it does not know which one it carries."""
    tls, is_http = view.settings.tls, view.settings.mode == "http"
    assert tls is not None
    return ServerRules(view.settings.protocols if is_http else (), tls.min_version, tls.client_auth)


class Handshake:
    """One client in its handshake, as handler and timed item of the reactor."""

    is_idle = False
    __slots__ = (
        "_contexts",
        "_events",
        "_fd",
        "_has_left",
        "_hello",
        "_owner",
        "_reader",
        "_seen",
        "_tls",
        "deadline",
        "facts",
        "queued_at",
        "sock",
        "view",
    )

    def __init__(
        self, owner: Owner, sock: socket.socket, view: ListenerView, facts: ClientFacts, contexts: ServerContexts
    ) -> None:
        self._owner = owner
        self._contexts = contexts
        self._reader: ClientHelloReader | None = None  # of a hello that has to be read
        self._seen = 0  # bytes that `_reader` has had
        self._hello: ClientHello | None = None  # while the client waits for its turn
        self._tls: TlsSocket | None = None
        self._has_left = False  # we have said our last word
        self.sock = sock
        self._fd = sock.fileno()
        self.view = view
        self.facts = facts
        self.deadline = self.queued_at = NEVER
        # Bytes that are only looked at stay readable: of those no event is to tell again. OpenSSL reads all there are.
        self._events = READ | EDGE
        owner.reactor.register(self._fd, self._events, self)
        owner.reactor.arm(self, view.settings.timeouts.header_s)

    def on_ready(self, mask: int) -> None:
        if self._tls is not None:
            self._shake(self._tls)
        elif self._has_left:
            self._drop()
        elif self._hello is None:  # else its turn has not come: what can be read stays where it is
            self._look()

    def _look(self) -> None:
        """Read the ClientHello where it stands: OpenSSL reads it again."""
        try:
            data = socket.socket.recv(self.sock, MOST_BYTES + 1, PEEK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if len(data) <= self._seen:
            if not data or self._has_ended():
                self._gone()
            return
        new, self._seen = data[self._seen :], len(data)
        try:
            hello = self._read(new)
        except NotClientHello as exc:
            self._refuse_other(exc)
            return
        if hello is None:
            if self._has_ended():  # with the bytes: no further event would tell
                self._gone()
            return
        self._reader = None
        self._hello = hello
        self._owner.turns.ask(self)

    def _read(self, new: bytes) -> ClientHello | None:
        """None: more is needed. Raises NotClientHello."""
        if self._reader is None:
            contexts = self._contexts
            if contexts.is_single and needs_no_look(new, contexts.offered):
                return ANY_HELLO
            self._reader = ClientHelloReader()
        return self._reader.feed(new)

    def _has_ended(self) -> bool:
        """The end stands behind a part of a hello. Else the event was another one's, which had this descriptor."""
        poll = select.poll()
        poll.register(self._fd, select.POLLRDHUP)
        return bool(poll.poll(0))

    def begin(self) -> None:
        """Begin the handshake: the client's turn has come."""
        hello, self._hello = self._hello, None
        assert hello is not None
        offered = self._contexts.offered
        if hello.protocols is not None and offered and offered.isdisjoint(hello.protocols):
            self._refuse("no protocol of the client is one of ours", NO_PROTOCOL)
            return
        self.sock = self._tls = TlsSocket.server(self.sock, self._contexts.named(hello.server_name))
        self._shake(self._tls)

    def _shake(self, tls: TlsSocket) -> None:
        owner = self._owner
        try:
            waits = tls.handshake()
        except PeerGone:
            self._gone()
            return
        except HandshakeFailed as exc:
            self._refuse(str(exc), b"")
            return
        if waits is not None:
            self._wait_for(WRITE if waits is Waits.WRITE else READ | EDGE)
            return
        owner.note("tls_handshake", self.view.settings.name, RESUMED if tls.is_resumed else OK, tls.tls_version)
        self._wait_for(READ)
        owner.reactor.disarm(self)
        protocols = self.view.settings.protocols
        protocol = tls.protocol or ("http/1.1" if "http/1.1" in protocols else protocols[0])
        facts = self._facts_of(tls)
        owner.admitted(self, ClientConnection(tls, self.view, facts, protocol=protocol, events=READ))
        owner.turns.done(self)

    def _wait_for(self, events: int) -> None:
        if events != self._events:
            self._events = events
            self._owner.reactor.modify(self._fd, events)

    def _facts_of(self, tls: TlsSocket) -> ClientFacts:
        """The facts, with the lines that tell backends of the client's certificate if this listener asks for one."""
        settings = self.view.settings.tls
        if settings is None or settings.client_auth is None:
            return self.facts
        return replace(self.facts, certificate=certificate_lines(tls.peer_certificate))

    # Without success

    def _refuse_other(self, found: NotClientHello) -> None:
        """What is no ClientHello. OpenSSL knows the right alert, if there is one."""
        if found.spoken is Spoken.HTTP:
            self._refuse(str(found), PLAIN_HTTP)
            return
        why = str(found)
        self.sock = tls = TlsSocket.server(self.sock, self._contexts.first)
        try:
            tls.handshake()
        except HandshakeFailed as exc:
            why = str(exc)
        self._refuse(why, b"")

    def _refuse(self, why: str, answer: bytes) -> None:
        """Say `answer` (OpenSSL has said its alert itself), and let the client read it."""
        owner = self._owner
        self._failed(why)
        self._tls, self._has_left = None, True
        plain = socket.socket
        try:
            if answer:
                plain.send(self.sock, answer)
            plain.shutdown(self.sock, socket.SHUT_WR)
        except OSError:
            self.close(None)
            return
        self._wait_for(READ)
        owner.reactor.arm(self, LINGER_S)
        owner.turns.done(self)
        self._drop()

    def _drop(self) -> None:
        try:
            alive = bool(socket.socket.recv(self.sock, DROPPED_AT_ONCE_BYTES))
        except BlockingIOError:
            return
        except OSError:
            alive = False
        if not alive:
            self.close(None)

    def give_way(self) -> None:
        self._failed("it stood still while others waited for its place")
        self.close(None)

    def _gone(self) -> None:
        self._owner.note("tls_handshake", self.view.settings.name, GONE, "")
        self.close(None)

    def on_deadline(self) -> None:
        if not self._has_left:
            self._failed(f"not complete within {self.view.settings.timeouts.header_s:g}s")
        self.close(None)

    def _failed(self, why: str) -> None:
        name = self.view.settings.name
        self._owner.note("tls_handshake", name, FAILED, "")
        self._owner.tell_failed(TlsFailed(name, self.facts.ip.decode(), why))

    def leave(self, in_s: float) -> None:
        """The worker stops: the client has so much time, or LAST_S if its ClientHello is on the way."""
        reactor = self._owner.reactor
        reactor.arm_at(self, min(self.deadline, reactor.now + (max(in_s, LAST_S) if self._seen else in_s)))

    def close(self, why: str | None) -> None:
        """`why`: see Admission.close."""
        self._owner.reactor.forget(self._fd)
        self._owner.reactor.disarm(self)
        self.sock.close()
        self._owner.not_admitted(self, why)
        self._owner.turns.done(self)

    def abort(self) -> None:
        """A mistake of ours costs this connection."""
        self.close(None)
