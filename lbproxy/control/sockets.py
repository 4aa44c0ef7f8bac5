"""Listening sockets: made before anything else, kept open by control, one per worker and address (DESIGN.md 2).

Does not know tables or workers: hands out descriptors by listener key and worker.
"""

import contextlib
import errno
import os
import socket
import stat
import struct
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lbproxy.address import Address
from lbproxy.control.passed_sockets import NotPassed, PassedSockets
from lbproxy.errors import LbproxyError
from lbproxy.link.grid import CellBook
from lbproxy.model import ListenerView
from lbproxy.settings import ListenerSettings

BACKLOG = 4096
FIRST_UNPRIVILEGED = 1024


class BindFailed(LbproxyError):
    """lbproxy cannot listen on an address. The text is one line for the operator. Nothing has changed."""


@dataclass(slots=True)
class _Bound:
    """One address. A TCP address has one socket per worker (SO_REUSEPORT), a unix address one socket for all.

    The first socket of a passed address is a copy of the service manager's. No filter is attached to it, and clients
    wait in its queue when lbproxy is gone.
    """

    address: Address
    key: int
    cell: int
    sockets: list[socket.socket]
    is_shared: bool = False  # one socket for all workers
    why_shared: str = ""  # of a TCP socket: the workers get clients unevenly
    inode: int = 0  # of the path: `close` removes only a file that lbproxy made
    listening: int = 0  # how many of the sockets listen; the others are only bound
    hidden: bool = False
    joins: bool = False  # it overlaps with an address that is held already, and listens only when it is shown

    @property
    def _own(self) -> list[socket.socket]:
        return self.sockets if self.address.passed is None else self.sockets[1:]

    def fd_of(self, row: int) -> int:
        if self.is_shared:
            row = 0
        self.listen(row + 1)
        return self.sockets[row].fileno()

    def grow(self, count: int) -> None:
        """Make sockets until each of `count` workers has one. No connection is queued on a new one before `listen`."""
        while not self.is_shared and len(self.sockets) < count:
            if self.address.passed is None:
                self.sockets.append(_tcp_socket(self.address, share=True, hidden=self.hidden))
                continue
            try:
                self.sockets.append(_beside(self.sockets[0], hidden=self.hidden))
            except OSError as exc:
                if len(self.sockets) > 1:
                    raise
                # The kernel lets only sockets of one user share a port, and systemd makes its sockets as root.
                self.is_shared = True
                self.why_shared = f"no other can be bound beside it ({(exc.strerror or str(exc)).lower()})"

    def listen(self, count: int) -> None:
        if self.hidden and (self.address.path is not None or self.joins):
            return  # connects are refused, or go to the address that is held already
        while self.listening < min(count, len(self.sockets)):
            self.sockets[self.listening].listen(BACKLOG)
            self.listening += 1

    def show(self) -> None:
        if not self.hidden:
            return
        self.hidden = False
        if self.address.path is None:
            for sock in self._own:
                with contextlib.suppress(OSError):  # no filter was attached
                    sock.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
        self.listen(len(self.sockets))

    def hide(self) -> None:
        """Let no handshake begin. Closing a socket resets the connections in its queue and in a handshake."""
        if self.address.path is None:
            for sock in self._own:
                _drop_syns(sock)
            return
        with contextlib.suppress(OSError):  # another program has removed it already
            if os.stat(self.address.path).st_ino == self.inode:
                os.unlink(self.address.path)

    def shrink(self, count: int) -> None:
        for sock in self.sockets[count:]:
            sock.close()
        del self.sockets[count:]
        self.listening = min(self.listening, len(self.sockets))


class Sockets:
    def __init__(self, cells: CellBook, passed: PassedSockets | None = None) -> None:
        self._cells = cells
        self._passed = passed or PassedSockets()
        self._bound: dict[Address, _Bound] = {}
        self._next_key = 1

    def bind(
        self, listeners: Sequence[ListenerSettings], workers: int, *, hidden: bool = False
    ) -> tuple[ListenerView, ...]:
        """Make the missing sockets for `workers` workers. Sockets that listen already stay as they are.

        With `hidden` no client can connect to a new socket before `show`, because the reload may still fail.
        Sockets that are not wanted any more stay open until `release_others`: their clients have not been served yet.
        Raises BindFailed and closes the sockets that this call made.
        """
        before = {address: len(bound.sockets) for address, bound in self._bound.items()}
        address = None
        try:
            for address in dict.fromkeys(listener.address for listener in listeners):
                bound = self._bound.get(address) or self._bind(address, hidden=hidden)
                bound.grow(workers)
                if address not in before:
                    bound.listen(workers)
                # An additional socket of an address listens when its worker is there: see `for_worker`.
        except (OSError, RuntimeError, NotPassed) as exc:
            for bound in list(self._bound.values()):
                if bound.address not in before:
                    self._close(bound)
                else:
                    bound.shrink(before[bound.address])
            raise BindFailed(f"cannot listen on {address}: {why_not_bound(exc, address)}") from exc
        return tuple(
            ListenerView(self._bound[listener.address].key, self._bound[listener.address].cell, listener)
            for listener in listeners
        )

    def why_not(self, address: Address) -> str | None:
        """Why `bind` could not listen on an address; None if it could. No client sees anything of the attempt."""
        if address in self._bound:
            return None
        try:
            if address.passed is not None:
                with self._passed.open(address.passed) as sock:
                    self._refuse_twice(sock)
            elif address.path is not None:
                _is_stale(address.path)
            else:
                _tcp_socket(address, share=self._joins(address), hidden=False, listen=False).close()
        except (OSError, NotPassed) as exc:
            return f"cannot listen on {address}: {why_not_bound(exc, address)}"
        return None

    def for_worker(self, row: int, listeners: Iterable[ListenerView]) -> list[int]:
        """The descriptors of worker `row` (0-based) in the order of `listeners`. They listen from now on."""
        return [self._bound[listener.settings.address].fd_of(row) for listener in listeners]

    def remarks(self, views: Iterable[ListenerView], workers: int) -> list[str]:
        """What an operator should know of passed sockets, one line each."""
        addresses = [view.settings.address for view in views]
        passed = [self._bound[address] for address in addresses if address.passed is not None]
        lines = [
            f"{bound.address} is one socket for {workers} workers, which get clients unevenly: {bound.why_shared}"
            for bound in passed
            if bound.why_shared and workers > 1
        ]
        unused = self._passed.unused([bound.sockets[0].fileno() for bound in passed])
        return lines + [f"{one} was passed to lbproxy and no listener uses it: its clients wait" for one in unused]

    def where(self, view: ListenerView) -> str:
        """The address as the log shows it: of a passed socket with the place where it listens."""
        address = view.settings.address
        if address.passed is None:
            return str(address)
        name = self._bound[address].sockets[0].getsockname()
        return f"{address} ({Address(name[0], name[1]) if isinstance(name, tuple) else Address(path=str(name))})"

    def show(self, views: Iterable[ListenerView]) -> None:
        """Let clients connect to `listeners`: the next table has them."""
        for view in views:
            self._bound[view.settings.address].show()

    def hide_others(self, keep: Iterable[ListenerView]) -> None:
        """Let no client begin to connect to the other listeners. Workers still accept handshakes in progress.

        `release_others` must follow.
        """
        kept = {listener.key for listener in keep}
        for bound in self._bound.values():
            if bound.key not in kept:
                bound.hide()

    def release_others(self, keep: Iterable[ListenerView], workers: int) -> None:
        """Close the sockets that no table has any more. Call it when every worker has applied the table."""
        kept = {listener.key for listener in keep}
        for bound in list(self._bound.values()):
            if bound.key not in kept:
                self._close(bound)
            elif not bound.is_shared:
                bound.shrink(workers)

    def close(self) -> None:
        for bound in list(self._bound.values()):
            self._close(bound)

    def _bind(self, address: Address, *, hidden: bool) -> _Bound:
        # ":80" becomes "127.0.0.1:80", or the reverse. A hidden socket that listened on the narrower address would take
        # the clients of the wider one, and drop them.
        joins = self._joins(address)
        if address.passed is not None:
            first = self._passed.open(address.passed)
        elif address.path is not None:
            first = unix_socket(address.path)
        else:
            first = _tcp_socket(address, share=joins, hidden=hidden and not joins)
        try:
            if address.passed is not None:
                self._refuse_twice(first)
            cell = self._cells.take()
        except BaseException:
            first.close()
            raise
        bound = _Bound(address, self._next_key, cell, [first], hidden=hidden, joins=joins)
        if address.passed is not None:
            _describe_passed(bound)
        elif address.path is not None:
            bound.is_shared = True
            bound.inode = os.stat(address.path).st_ino
        elif not joins:
            bound.listening = 1
        self._next_key += 1
        self._bound[address] = bound
        return bound

    def _joins(self, address: Address) -> bool:
        return any(_overlap(address, bound.address) for bound in self._bound.values())

    def _refuse_twice(self, first: socket.socket) -> None:
        """Raises NotPassed if another listener has this passed socket, by its other name."""
        for bound in self._bound.values():
            if os.path.sameopenfile(first.fileno(), bound.sockets[0].fileno()):
                raise NotPassed(f"it is the same socket as {bound.address}")

    def _close(self, bound: _Bound) -> None:
        del self._bound[bound.address]
        self._cells.give_back(bound.cell)
        bound.hide()
        bound.shrink(0)


def _describe_passed(bound: _Bound) -> None:
    """A passed socket listens already. More than one worker can have a socket only with ReusePort=yes."""
    first = bound.sockets[0]
    bound.joins, bound.listening = True, 1
    if first.family == socket.AF_UNIX:
        bound.is_shared = True
    elif not first.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT):
        bound.is_shared, bound.why_shared = True, "its .socket unit has no ReusePort=yes"


def _beside(first: socket.socket, *, hidden: bool) -> socket.socket:
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
            _drop_syns(sock)
        sock.bind(first.getsockname())
    except BaseException:
        sock.close()
        raise
    return sock


def _overlap(one: Address, other: Address) -> bool:
    """Whether two different TCP addresses share a port, so that only SO_REUSEPORT lets both be bound."""
    same_port = one.port == other.port and one.port > 0  # 0: a path, or a passed socket
    return same_port and not {one.host, other.host}.isdisjoint(_EVERY_HOST)


_EVERY_HOST = ("", "0.0.0.0", "::")


def unbound_tcp_socket(address: Address) -> tuple[socket.socket, tuple[str, int]]:
    """A socket, and what to bind it to. Without a host it takes IPv4 and IPv6, where the machine has both."""
    both = address.host == "" and socket.has_dualstack_ipv6() and os.path.exists("/proc/net/if_inet6")
    family = socket.AF_INET6 if both or ":" in address.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if both else 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return sock, (address.host or ("::" if both else "0.0.0.0"), address.port)


def _tcp_socket(address: Address, *, share: bool, hidden: bool, listen: bool = True) -> socket.socket:
    """A socket on the port. With `share` it joins sockets of ours that hold the port, and does not listen yet.

    The first one is bound without SO_REUSEPORT, so a port that another program holds is found in use although that
    program may share it; only then the option is set, which lets our own others join.
    """
    sock, where = unbound_tcp_socket(address)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted connections inherit it
        if hidden:
            _drop_syns(sock)
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
    if _is_stale(path):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.bind(path)
    except BaseException:
        sock.close()
        raise
    return sock


def _is_stale(path: str) -> bool:
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


def _drop_syns(sock: socket.socket) -> None:
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
