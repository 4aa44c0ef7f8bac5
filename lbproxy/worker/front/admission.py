"""The front door: what stands between accept and a lane where a listener asks for it (DESIGN.md 3).

A stage reads what comes before the client's first byte; a listener without one is not concerned. Stages are bounded in
time (`timeouts.header`) and counted among the connections of their listener. Knows no lane and no HTTP.
"""

import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from lbproxy.model import ListenerView
from lbproxy.wire.headers import ClientFacts
from lbproxy.wire.proxy_protocol import MOST_BYTES, BadProxyHeader, read_proxy_header
from lbproxy.worker.io.reactor import NEVER, READ, Reactor


@dataclass(frozen=True, slots=True)
class ClientConnection:
    """A client that has been admitted: what a lane begins with."""

    sock: socket.socket
    view: ListenerView
    facts: ClientFacts
    early: bytes = b""  # received behind the stage's own bytes
    protocol: str = "http/1.1"


class NotAdmitted(Exception):
    """The client is let go of without a word. The text is for the operator."""


class Stage(Protocol):
    def feed(self, data: bytes) -> tuple[ClientFacts | None, bytes] | None:
        """All bytes so far; None: more are needed. Else the facts (None: those of the peer) and the bytes behind the
        stage's own. Raises NotAdmitted."""


class ProxyHeaderStage:
    """Reads a PROXY header. After it, the announced address is the peer. `facts_of`: of an address as text."""

    def __init__(self, facts_of: Callable[[str], ClientFacts]) -> None:
        self._facts_of = facts_of

    def feed(self, data: bytes) -> tuple[ClientFacts | None, bytes] | None:
        try:
            read = read_proxy_header(data)
        except BadProxyHeader as exc:
            raise NotAdmitted(str(exc)) from None
        if read is None:
            return None
        announced, end = read
        return None if announced.ip is None else self._facts_of(announced.ip), data[end:]


class Owner(Protocol):
    """Who admits: it counts the connections, and passes them on."""

    reactor: Reactor

    def admitted(self, admission: "Admission", connection: ClientConnection) -> None: ...
    def not_admitted(self, admission: "Admission", why: str | None) -> None: ...


class Admission:
    """One client in its stage, as handler and timed item of the reactor."""

    __slots__ = ("_data", "_owner", "_stage", "deadline", "facts", "queued_at", "sock", "view")

    def __init__(self, owner: Owner, sock: socket.socket, view: ListenerView, facts: ClientFacts, stage: Stage) -> None:
        self._owner = owner
        self.facts = facts
        self._stage = stage
        self._data = b""
        self.sock = sock
        self.view = view
        self.deadline = self.queued_at = NEVER
        owner.reactor.register(sock.fileno(), READ, self)
        owner.reactor.arm(self, view.settings.timeouts.header_s)

    def on_ready(self, mask: int) -> None:
        is_tls = self.view.settings.tls is not None
        try:
            data = self.sock.recv(MOST_BYTES, socket.MSG_PEEK if is_tls else 0)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close(None)
            return
        self._data += data
        try:
            done = self._stage.feed(self._data)
        except NotAdmitted as exc:
            self.close(str(exc))
            return
        if is_tls:  # OpenSSL reads the socket itself: what stands behind the header stays there
            behind = 0 if done is None else len(done[1])
            self.sock.recv(len(data) - behind)
        if done is not None:
            facts, early = done
            if is_tls:
                early = b""
            self._owner.reactor.unregister(self.sock.fileno())
            self._owner.reactor.disarm(self)
            self._owner.admitted(self, ClientConnection(self.sock, self.view, facts or self.facts, early))

    def on_deadline(self) -> None:
        self.close(f"no complete header within {self.view.settings.timeouts.header_s:g}s")

    def close(self, why: str | None) -> None:
        """`why`: None where nothing is worth telling: the client has left, or the worker stops."""
        self._owner.reactor.forget(self.sock.fileno())
        self._owner.reactor.disarm(self)
        self.sock.close()
        self._owner.not_admitted(self, why)

    def abort(self) -> None:
        """A mistake of ours costs this connection."""
        self.close(None)
