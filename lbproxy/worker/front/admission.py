"""The front door: what stands between accept and a lane where a listener asks for it (DESIGN.md 3).

A stage reads what comes before the client's first byte; a listener without one is not concerned. Stages are bounded in
time (`timeouts.header`) and counted among the connections of their listener. Knows no lane and no HTTP.
"""

import socket
from collections.abc import Callable, Sequence
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
    server_name: str | None = None  # that its ClientHello asks for, where routes go by it
    events: int = 0  # for which its descriptor is registered already


class NotAdmitted(Exception):
    """The client is let go of without a word. The text is for the operator."""


@dataclass(frozen=True, slots=True)
class Passed:
    """A client is through with a stage. `early`: the bytes behind the stage's own; `facts`: None leaves them."""

    early: bytes
    facts: ClientFacts | None = None
    server_name: str | None = None
    protocol: str | None = None  # that the client speaks, where its bytes decide


class Stage(Protocol):
    silent_s: float | None  # a client that says nothing for so long passes; None: it is let go of
    may_idle: bool  # the client may be silent for as long as between two requests, and is let go of then

    def feed(self, data: bytes) -> Passed | None:
        """`data`: everything that has come for this stage so far. None: more is needed. Raises NotAdmitted."""


class ProxyHeaderStage:
    """Reads a PROXY header. After it, the announced address is the peer. `facts_of`: an address as text, a port."""

    silent_s: float | None = None
    may_idle = False

    def __init__(self, facts_of: Callable[[str, int], ClientFacts]) -> None:
        self._facts_of = facts_of

    def feed(self, data: bytes) -> Passed | None:
        try:
            read = read_proxy_header(data)
        except BadProxyHeader as exc:
            raise NotAdmitted(str(exc)) from None
        if read is None:
            return None
        announced, end = read
        return Passed(data[end:], None if announced.ip is None else self._facts_of(announced.ip, announced.port))


class Owner(Protocol):
    """Who admits: it counts the connections, and passes them on."""

    reactor: Reactor

    def admitted(self, admission: "Admission", connection: ClientConnection) -> None: ...
    def not_admitted(self, admission: "Admission", why: str | None) -> None: ...


class Admission:
    """One client in its stages, as handler and timed item of the reactor."""

    __slots__ = (
        "_data",
        "_gives_up_at",
        "_owner",
        "_protocol",
        "_server_name",
        "_stages",
        "deadline",
        "facts",
        "queued_at",
        "sock",
        "view",
    )

    def __init__(
        self, owner: Owner, sock: socket.socket, view: ListenerView, facts: ClientFacts, stages: Sequence[Stage]
    ) -> None:
        self._owner = owner
        self.facts = facts
        self._stages = list(stages)
        self._data = b""
        self._server_name: str | None = None
        # Not decided by bytes where there is no choice.
        self._protocol = "http/1.1" if "http/1.1" in view.settings.protocols else "h2c"
        self.sock = sock
        self.view = view
        self.deadline = self.queued_at = NEVER
        self._gives_up_at = owner.reactor.now + self._patience_s
        owner.reactor.register(sock.fileno(), READ, self)
        self._wait()

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
        if self.is_idle:
            self._gives_up_at = self._owner.reactor.now + self.view.settings.timeouts.header_s
            self._owner.reactor.arm_at(self, self._gives_up_at)
        self._data += data
        try:
            while self._stages and (passed := self._stages[0].feed(self._data)) is not None:
                self._pass(passed)
        except NotAdmitted as exc:
            self.close(str(exc))
            return
        if is_tls:  # OpenSSL reads the socket itself: what stands behind the header stays there
            behind = 0 if self._stages else len(self._data)
            self.sock.recv(len(data) - behind)
        if not self._stages:
            self._admit(b"" if is_tls else self._data)

    def _pass(self, passed: Passed) -> None:
        del self._stages[0]
        self._data = passed.early
        self.facts = passed.facts or self.facts
        self._server_name = passed.server_name
        self._protocol = passed.protocol or self._protocol
        if self._stages:
            self._gives_up_at = self._owner.reactor.now + self._patience_s
            self._wait()

    @property
    def _patience_s(self) -> float:
        timeouts = self.view.settings.timeouts
        return timeouts.idle_s if self.is_idle else timeouts.header_s

    @property
    def is_idle(self) -> bool:
        """Nothing has come, and nothing need come soon."""
        return not self._data and bool(self._stages) and self._stages[0].may_idle

    def _wait(self) -> None:
        """Wait for the client's bytes, as long as the header may take, or the client may be silent."""
        reactor, silent_s = self._owner.reactor, self._stages[0].silent_s
        silent_at = NEVER if silent_s is None or self._data else reactor.now + silent_s
        reactor.arm_at(self, min(silent_at, self._gives_up_at))

    def _admit(self, early: bytes) -> None:
        self._owner.reactor.unregister(self.sock.fileno())
        self._owner.reactor.disarm(self)
        made = ClientConnection(self.sock, self.view, self.facts, early, self._protocol, self._server_name)
        self._owner.admitted(self, made)

    def leave(self, in_s: float) -> None:
        """The worker stops: the client has so much time."""
        self._gives_up_at = self._owner.reactor.now + in_s
        self._wait()

    def on_deadline(self) -> None:
        if self._owner.reactor.now >= self._gives_up_at:
            self.close(None if self.is_idle else f"no complete header within {self.view.settings.timeouts.header_s:g}s")
        elif self._data:
            self._wait()
        else:  # only where the client may be silent the deadline comes before that; no stage stands behind such a one
            self._stages.clear()
            self._admit(b"")

    def close(self, why: str | None) -> None:
        """`why`: None where nothing is worth telling: the client has left, or the worker stops."""
        self._owner.reactor.forget(self.sock.fileno())
        self._owner.reactor.disarm(self)
        self.sock.close()
        self._owner.not_admitted(self, why)

    def abort(self) -> None:
        """A mistake of ours costs this connection."""
        self.close(None)
