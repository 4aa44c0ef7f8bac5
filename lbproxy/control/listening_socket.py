"""One listening socket: bound with SO_REUSEPORT or to a path, and how it is hidden from clients.

Knows addresses and socket options. sockets.py knows which sockets there are.
"""

import contextlib
import errno
import os
import socket
import stat
import struct
from array import array

from lbproxy.address import Address
from lbproxy.control.passed_sockets import NotPassed
from lbproxy.errors import LbproxyError

BACKLOG = 4096
FIRST_UNPRIVILEGED = 1024


class BindFailed(LbproxyError):
    """lbproxy cannot listen on an address. The text is one line for the operator. Nothing has changed."""


def beside(first: socket.socket, *, hidden: bool) -> socket.socket:
    """Another socket on the address of a passed one that has SO_REUSEPORT. It does not listen yet."""
    sock = socket.socket(first.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        if sock.family == socket.AF_INET6:
            only = first.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hidden:
            drop_syns(sock)
        sock.bind(first.getsockname())
    except BaseException:
        sock.close()
        raise
    return sock


def unbound_tcp_socket(address: Address) -> tuple[socket.socket, tuple[str, int]]:
    """A socket, and what to bind it to. Without a host it takes IPv4 and IPv6, where the machine has both."""
    both = address.host == "" and socket.has_dualstack_ipv6() and os.path.exists("/proc/net/if_inet6")
    family = socket.AF_INET6 if both or ":" in address.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if both else 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return sock, (address.host or ("::" if both else "0.0.0.0"), address.port)


def tcp_socket(address: Address, *, share: bool, hidden: bool, listen: bool = True) -> socket.socket:
    """A socket on the port. With `share` it joins sockets of ours that hold the port, and does not listen yet.

    The first one is bound without SO_REUSEPORT, so a port that another program holds is found in use although that
    program may share it; only then the option is set, which lets our own others join.
    """
    sock, where = unbound_tcp_socket(address)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted connections inherit it
        if hidden:
            drop_syns(sock)
        if share:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(where)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if listen and not share:
            sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def unix_socket(path: str) -> socket.socket:
    """Replace a stale socket file (no program answers). Any other file at the path is left alone."""
    if is_stale(path):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.bind(path)
    except BaseException:
        sock.close()
        raise
    return sock


def taken_socket(fd: int) -> socket.socket:
    """A socket that an earlier program of this process has left open over its exec."""
    os.set_inheritable(fd, False)
    sock = socket.socket(fileno=fd)
    sock.setblocking(False)
    return sock


def is_stale(path: str) -> bool:
    """Whether a socket that no program answers is in the way. Raises OSError if no socket can be made at the path."""
    directory = os.path.dirname(path) or "."
    os.stat(directory)
    if not os.access(directory, os.W_OK | os.X_OK, effective_ids=True):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    if not os.path.lexists(path):
        return False
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise FileExistsError(errno.EEXIST, "a file that is not a socket is in the way")
    # Non-blocking: a live socket whose queue is full would block control.
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as asking:
        try:
            asking.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return True
        except BlockingIOError:
            pass
    raise OSError(errno.EADDRINUSE, "address already in use")


def drop_syns(sock: socket.socket) -> None:
    """Drop every SYN. A client that connects now tries again in a second, and finds the next owner of the port, if any.

    A classic filter of the kernel sees the TCP header from its first byte; the flags are in the fourteenth (RFC 9293,
    3.1). The filter belongs to the socket, not to a descriptor of it. It does not apply to accepted connections.
    """
    program = array("B", b"".join(struct.pack("HBBI", *line) for line in DROP_SYNS))
    address, _ = program.buffer_info()
    with contextlib.suppress(OSError):  # no filters in this kernel: connects are refused a little later
        sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", len(DROP_SYNS), address))


SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27  # the standard library has no names for them
DROP_SYNS = (
    (0x30, 0, 0, 13),  # load the byte of the flags
    (0x54, 0, 0, 0x12),  # of them SYN and ACK
    (0x15, 0, 1, 0x02),  # SYN alone?
    (0x06, 0, 0, 0),  # drop it
    (0x06, 0, 0, 0xFFFFFFFF),  # keep all of it
)


def why_not_bound(exc: Exception, address: Address | None) -> str:
    if isinstance(exc, PermissionError) and address is not None and 0 < address.port < FIRST_UNPRIVILEGED:
        return "permission denied (ports below 1024 need root or CAP_NET_BIND_SERVICE)"
    if isinstance(exc, NotPassed):
        return str(exc)
    text = exc.strerror if isinstance(exc, OSError) else None
    return (text or str(exc)).lower()
