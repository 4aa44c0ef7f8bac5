"""The listening socket of [admin]. Control alone accepts from it, so no other process can share its port.

Knows an address. Does not know what is served.
"""

import contextlib
import os
import socket

import trio

from lbproxy.address import Address
from lbproxy.control.handed_on import HandedSocket
from lbproxy.control.listening_socket import BindFailed, taken_socket, unbound_tcp_socket, unix_socket, why_not_bound

BACKLOG = 128


class AdminSocket:
    """`sock` is None while [admin] is off."""

    def __init__(self) -> None:
        self.address: Address | None = None
        self.sock: socket.socket | None = None
        self._inode = 0

    def bind(self, address: Address) -> None:
        """Raises BindFailed."""
        try:
            sock = unix_socket(address.path) if address.path is not None else _tcp_socket(address)
            sock.listen(BACKLOG)
        except (OSError, UnicodeError) as exc:
            raise BindFailed(f"[admin] cannot listen on {address}: {why_not_bound(exc, address)}") from None
        self.address, self.sock = address, sock
        if address.path is not None:
            self._inode = os.stat(address.path).st_ino

    def hand_on(self) -> HandedSocket | None:
        if self.sock is None or self.address is None:
            return None
        return HandedSocket(self.address, self.sock.fileno(), (self._inode,))

    def take_over(self, handed: HandedSocket) -> None:
        """Go on with the socket of an earlier program of this control."""
        self.address, self.sock = handed.address, taken_socket(handed.socket_fd)
        (self._inode,) = handed.identity

    def close(self) -> None:
        if self.sock is None or self.address is None:
            return
        if self.address.path is not None:
            with contextlib.suppress(OSError):  # another program has removed it already
                if os.stat(self.address.path).st_ino == self._inode:
                    os.unlink(self.address.path)
        self.sock.close()
        self.sock = self.address = None


def _tcp_socket(address: Address) -> socket.socket:
    sock, where = unbound_tcp_socket(address)
    try:
        sock.bind(where)
    except BaseException:
        sock.close()
        raise
    return sock


def peer_address(connection: trio.socket.SocketType) -> str:
    """The IP address of a client; "" on a unix socket. Raises OSError when it has gone."""
    if connection.family == socket.AF_UNIX:
        return ""
    host: str = connection.getpeername()[0]
    return host.removeprefix("::ffff:")
