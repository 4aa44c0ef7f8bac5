"""A connected TLS socket with the manners of a plain one, so that every lane and relay runs over TLS unchanged.

recv and send raise BlockingIOError where they would block, and an OSError where the connection is broken. A read leaves
nothing inside OpenSSL while the descriptor is quiet. Flags are accepted and mean nothing. Knows bytes and one
descriptor; nothing of certificates, and nothing of who waits.

OpenSSL reads and writes the descriptor itself. Measured against memory buffers between OpenSSL and the socket
(CPython 3.11, OpenSSL 3.0, per request of a bare server): 12 bytes 11.3 us against 10.9, 64 KB 53 against 48; but an
idle connection holds 15.0 KB against 17.1, and each buffer keeps the size of the largest message that it ever held:
22 KB more after one large answer. Encryption in the kernel is possible this way only.
"""

import contextlib
import errno
import os
import socket
import ssl
from enum import Enum
from functools import cache
from typing import Any, Self

from lbproxy.errors import LbproxyError
from lbproxy.tls.contexts import reason_of

RECORD_BYTES = 16 * 1024  # the most plain text in one record
LOUD_READS = 100  # in a row that would have to write first, while the peer takes nothing
# As plain ints: an operation on a flag of an enum takes 2 us.
_CORK, _MORE, _TCP = int(socket.TCP_CORK), int(socket.MSG_MORE), int(socket.IPPROTO_TCP)
_set_option = socket.socket.setsockopt
_SOL_TLS, _RECORD_TYPE, _ALERT = 282, 1, b"\x15"  # linux/tls.h; RFC 8446, 5.1


class Waits(Enum):
    """What a handshake waits for."""

    READ = "read"
    WRITE = "write"


@cache
def aside() -> tuple[socket.socket, socket.socket]:
    """A socket pair, always empty between two uses. Made once: a pair for each half-close costs 50 us."""
    pair = socket.socketpair()
    for end in pair:
        end.setblocking(False)
    return pair


class HandshakeFailed(LbproxyError):
    """The text says why: OpenSSL's reason, an alert of the peer, or a certificate that does not do."""


class PeerGone(HandshakeFailed):
    """The peer has ended the connection, or reset it, and gave no reason."""


class TlsSocket(socket.socket):
    """A server's or a client's end. Made of a connected, non-blocking socket, whose descriptor it takes over.

    The number of the descriptor stays the same. `handshake` comes first; it is to be called again when the socket is
    ready for what it waits for.
    """

    __slots__ = ("_ends", "_loud", "_tls")

    _tls: Any  # ssl's own object without the wrapper around it: a read costs 1.5 us less
    _ends: bool  # close() says goodbye (close_notify)
    _loud: int

    @classmethod
    def accepted(cls, family: int, kind: int, protocol: int, fd: int) -> Self:
        """Of a descriptor that accept() gave, as socket.socket makes one. Only `close`, and the methods of a plain
        socket, may be called before `server`. (A plain socket that becomes a TLS socket later costs 8 us more.)"""
        self = cls(family, kind, protocol, fd)
        self._ends = False
        return self

    @classmethod
    def server(cls, sock: socket.socket, context: ssl.SSLContext) -> Self:
        """`sock`: a plain socket, or one from `accepted` that is non-blocking."""
        if not isinstance(sock, cls):
            return cls._over(sock, context, True, None, None)
        sock._secure(context, True, None, None)
        return sock

    @classmethod
    def client(
        cls,
        sock: socket.socket,
        context: ssl.SSLContext,
        server_name: str | None = None,
        session: ssl.SSLSession | None = None,
    ) -> Self:
        """`session`: of an earlier connection to the same server with the same context, to be resumed."""
        return cls._over(sock, context, False, server_name, session)

    @classmethod
    def _over(
        cls,
        sock: socket.socket,
        context: ssl.SSLContext,
        is_server: bool,
        name: str | None,
        session: ssl.SSLSession | None,
    ) -> Self:
        family = int(sock.family)
        self = cls.accepted(family, socket.SOCK_STREAM, 0, sock.detach())
        self.setblocking(False)
        self._secure(context, is_server, name, session)
        return self

    def _secure(
        self, context: ssl.SSLContext, is_server: bool, name: str | None, session: ssl.SSLSession | None
    ) -> None:
        self._loud = 0
        wrap = context._wrap_socket  # type: ignore[attr-defined]
        try:
            self._tls = wrap(self, is_server, name, owner=None, session=session)
        except (ssl.SSLError, ValueError) as exc:  # such as a server name that is none
            socket.socket.close(self)
            raise HandshakeFailed(reason_of(exc)) from None

    def handshake(self) -> Waits | None:
        """None: it is complete. Raises HandshakeFailed, or PeerGone."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return Waits.READ
        except ssl.SSLWantWriteError:
            return Waits.WRITE
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError):
            raise PeerGone("the peer has left in the handshake") from None
        except ssl.SSLError as exc:
            if exc.reason == "UNEXPECTED_EOF_WHILE_READING":  # an SSLEOFError only in later Pythons
                raise PeerGone("the peer has left in the handshake") from None
            raise HandshakeFailed(reason_of(exc)) from None
        except OSError as exc:
            raise PeerGone(exc.strerror or str(exc)) from None
        self._ends = True
        return None

    # Bytes

    def recv(self, size: int, flags: int = 0) -> bytes:
        """As of a plain socket; but it may be more than `size` bytes: the rest of a record. b"" only after the peer's
        close_notify: an end without one is a ConnectionResetError, because anybody could have cut the connection."""
        try:
            data: bytes = self._tls.read(size)
        except ssl.SSLWantReadError:
            raise BlockingIOError(errno.EAGAIN, "would block") from None
        except ssl.SSLZeroReturnError:  # its close_notify, when ours is out
            data = b""
        except ssl.SSLWantWriteError:
            # The caller waits for bytes, and would be called at once again, and for ever, if they are there already.
            self._loud += 1
            if self._loud < LOUD_READS:
                raise BlockingIOError(errno.EAGAIN, "would block") from None
            raise ConnectionResetError(errno.ECONNRESET, "TLS: the peer says much and takes nothing") from None
        except ssl.SSLError as exc:
            raise self._broken(exc) from None
        if not data:
            # A FIN need not come with close_notify. The descriptor is to tell of the end as often as it is asked.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self, socket.SHUT_RD)
            return data
        if size > RECORD_BYTES:
            return self._recv_on(data, size)
        if len(data) == size and (left := self._tls.pending()):  # no descriptor would tell of the rest of a record
            data += self._tls.read(left)
        return data

    def _recv_on(self, data: bytes, size: int) -> bytes:
        """More records, up to `size` bytes. An end or an error is left to the next read, which meets it again."""
        parts, count = [data], len(data)
        try:
            while data and count < size:
                data = self._tls.read(size - count)
                parts.append(data)
                count += len(data)
            if left := self._tls.pending():
                parts.append(self._tls.read(left))
        except OSError:
            pass
        return b"".join(parts)

    def send(self, data: Any, flags: int = 0) -> int:
        """As of a plain socket. After a BlockingIOError, or fewer bytes than there are, the next call begins with the
        bytes that are left: OpenSSL has made a record of their beginning."""
        if flags & _MORE:
            self._cork(1)  # the end that follows sends everything in one packet
        try:
            if 0 < len(data) <= RECORD_BYTES:
                sent: int = self._tls.write(data)
                return sent
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            raise BlockingIOError(errno.EAGAIN, "would block") from None
        except ssl.SSLError as exc:
            raise self._broken(exc) from None
        return self._send_records(data) if data else 0

    def _send_records(self, data: Any) -> int:
        """One record after the other, so that what went out is known. The kernel holds back packets that are not full
        until the last record is there: 64 KB cost 53 us instead of 60."""
        self._cork(1)
        sent = 0
        try:
            with memoryview(data) as view:
                while sent < len(view):
                    sent += self._tls.write(view[sent : sent + RECORD_BYTES])
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            if not sent:
                raise BlockingIOError(errno.EAGAIN, "would block") from None
        except ssl.SSLError as exc:  # after some records the next call meets it again
            if not sent:
                raise self._broken(exc) from None
        except OSError:
            if not sent:
                raise
        finally:
            self._cork(0)
        return sent

    def _cork(self, value: int) -> None:
        try:  # noqa: SIM105 (suppress costs as much as the option)
            _set_option(self, _TCP, _CORK, value)
        except OSError:
            pass  # a unix socket has none

    def _broken(self, exc: ssl.SSLError) -> OSError:
        """An error of OpenSSL as a plain socket would have raised it."""
        self._ends = False
        why = "ended without close_notify" if isinstance(exc, ssl.SSLEOFError) else reason_of(exc)
        return ConnectionResetError(errno.ECONNRESET, f"TLS: {why}")

    # The end

    def shutdown(self, how: int) -> None:
        """close_notify, then the plain end. With SHUT_WR the peer may go on to send, and is read as before."""
        if self._ends and how != socket.SHUT_RD:
            self._ends = False
            if how == socket.SHUT_RDWR:
                self._end()
            elif alert := self._close_notify():
                with contextlib.suppress(OSError):  # no room for it: the end alone says it
                    self._send_alert(alert)
        super().shutdown(how)

    def _end(self) -> None:
        """Say close_notify. Python reads once behind it, and what is there breaks the connection: for its last end."""
        try:  # noqa: SIM105 (suppress costs as much as the shutdown)
            self._tls.shutdown()
        except (OSError, ValueError):
            pass

    def _close_notify(self) -> bytes:
        """The record that says it. Nothing may be read behind it (see _end): so the descriptor stands for one end of a
        socket pair for a moment, where nothing can be read. epoll knows the real socket by a second descriptor
        meanwhile, and finds it again under the old number."""
        ours, theirs = aside()
        fd = self.fileno()
        real = os.dup(fd)
        try:
            os.dup2(theirs.fileno(), fd, inheritable=False)
            self._end()
            return ours.recv(RECORD_BYTES)
        except OSError:
            return b""
        finally:
            os.dup2(real, fd, inheritable=False)
            os.close(real)

    def _send_alert(self, alert: bytes) -> None:
        if len(alert) > 2:
            super().send(alert, socket.MSG_MORE)
        else:  # the kernel encrypts: OpenSSL wrote the bare alert, and its type beside it
            self.sendmsg([alert], [(_SOL_TLS, _RECORD_TYPE, _ALERT)])

    def setsockopt(self, level: int, option: int, *value: Any) -> None:
        if option == socket.SO_LINGER and level == socket.SOL_SOCKET:
            self._ends = False  # a reset: nobody may take it for a clean end
        super().setsockopt(level, option, *value)

    def close(self) -> None:
        if self._ends:
            self._ends = False
            self._end()
        super().close()

    # Facts, after the handshake

    @property
    def protocol(self) -> str | None:
        """That ALPN chose; None: the peer offered none of ours."""
        chosen: str | None = self._tls.selected_alpn_protocol()
        return chosen

    @property
    def tls_version(self) -> str:
        """ "TLSv1.3" """
        return str(self._tls.version())

    @property
    def peer_certificate(self) -> bytes | None:
        """DER; None: the peer showed none. It was verified, if the context does that."""
        der: bytes | None = self._tls.getpeercert(True)
        return der

    @property
    def session(self) -> ssl.SSLSession | None:
        """A client's session, for its next connection. With TLS 1.3 it comes only after the server's first bytes."""
        session: ssl.SSLSession | None = self._tls.session
        return session

    @property
    def is_resumed(self) -> bool:
        return bool(self._tls.session_reused)
