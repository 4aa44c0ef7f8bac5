"""Connections to backends over TLS (targets that begin with https://): connect, handshake, resume.

Kept, used again and closed by connections.py as every other one. Knows one session per address and settings, which the
next connection resumes. The handshake is a task's: the express lane uses such connections once they stand.
"""

import trio

from lbproxy.address import Address
from lbproxy.errors import LbproxyError
from lbproxy.model import BackendView
from lbproxy.settings import TargetTls
from lbproxy.tls.contexts import BadCertificate
from lbproxy.tls.targets import Context, Session, target_context, token_of
from lbproxy.tls.tls_socket import HandshakeFailed, TlsSocket, Waits
from lbproxy.worker.backends.connections import (
    BackendConnection,
    ConnectFailed,
    ConnectTimedOut,
    open_socket,
)

MOST_SESSIONS = 1024
PLAIN_RULES = TargetTls()


class Untrusted(LbproxyError):
    """A backend whose handshake failed. Nothing was sent. `token`: the error type of RFC 9209.

    For a task it is one more way in which a backend gives no answer (task/response_heads.py).
    """

    reused = was_reset = was_sent = False

    def __init__(self, reason: str, token: str, backend: BackendView) -> None:
        super().__init__(reason)
        self.token = token
        self.backend = backend


class SecureConnection(BackendConnection):
    """A connection whose socket is a TlsSocket."""

    __slots__ = ("_context", "_sessions")

    def __init__(self, backend: BackendView, sock: TlsSocket, sessions: "SecureConnections", context: Context):
        super().__init__(backend, sock)
        self._sessions = sessions
        self._context = context

    def is_silent(self) -> bool:
        """Records that carry no data (a ticket) are no bytes that were sent unasked."""
        if super().is_silent():
            return True
        try:
            self.sock.recv(1)  # data or an end: it is not used again
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def on_ready(self, mask: int) -> None:
        if self.owner is not None or not self.is_silent():
            super().on_ready(mask)

    def close(self) -> None:
        if self.fd >= 0 and self.sock.fileno() >= 0:
            self._sessions.remember(self.backend.address, self._context, self.sock)
        super().close()


class SecureConnections:
    """The connections and sessions of one worker."""

    def __init__(self) -> None:
        self._sessions: dict[Address, tuple[Context, Session]] = {}  # a session is good with its context only

    def remember(self, address: Address, context: Context, sock: object) -> None:
        session = sock.session if isinstance(sock, TlsSocket) else None
        if session is not None:
            if len(self._sessions) >= MOST_SESSIONS:
                self._sessions.clear()
            self._sessions[address] = context, session

    async def connect(self, backend: BackendView, connect_s: float) -> SecureConnection:
        """A fresh connection, after its handshake: `connect_s` is for both. Raises ConnectFailed, ConnectTimedOut
        or Untrusted."""
        address, rules = backend.address, backend.tls or PLAIN_RULES
        step = "accept a connection"
        failed: type[ConnectFailed] = ConnectTimedOut
        with trio.move_on_after(connect_s):
            try:
                context = target_context(rules, "h2" if backend.is_http2 else "")
            except BadCertificate as exc:
                raise Untrusted(str(exc), "tls_certificate_error", backend) from None
            sock = await open_socket(address)
            step, failed = "complete a TLS handshake", ConnectFailed
            known, session = self._sessions.get(address, (None, None))
            name = rules.server_name or address.server_name
            try:
                secured = TlsSocket.client(sock, context, name, session if known is context else None)
                await _shake_hands(secured)
            except HandshakeFailed as exc:
                raise Untrusted(f"{address}: TLS: {exc}", token_of(str(exc)), backend) from None
            if backend.is_http2 and secured.protocol != "h2":
                secured.close()
                raise Untrusted(f"{address}: TLS: the backend does not agree on h2", "tls_protocol_error", backend)
            return SecureConnection(backend, secured, self, context)
        raise failed(f"{address} did not {step} within {connect_s:g}s")


async def _shake_hands(sock: TlsSocket) -> None:
    """Closes the socket when it fails. Raises HandshakeFailed."""
    try:
        while (waits := sock.handshake()) is not None:
            await (trio.lowlevel.wait_readable if waits is Waits.READ else trio.lowlevel.wait_writable)(sock)
    except BaseException:
        trio.lowlevel.notify_closing(sock)
        sock.close()
        raise
