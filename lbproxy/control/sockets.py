"""Listening sockets: made before anything else, kept open by control, one per worker and address (DESIGN.md 2).

Knows nothing of tables and workers; hands out descriptors by listener key and worker.
"""

import os
import socket
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from lbproxy.address import Address
from lbproxy.errors import LbproxyError
from lbproxy.link.grid import CellBook
from lbproxy.model import ListenerView
from lbproxy.settings import ListenerSettings

BACKLOG = 4096


class BindFailed(LbproxyError):
    """An address cannot be listened on; the text is one line for the operator. Nothing has changed."""


@dataclass(slots=True)
class _Bound:
    """One address. A TCP address has a socket per worker (SO_REUSEPORT), a unix one the same for all."""

    address: Address
    key: int
    cell: int
    sockets: list[socket.socket] = field(default_factory=list)

    def fd_of(self, row: int) -> int:
        return self.sockets[0 if self.address.path is not None else row].fileno()


class Sockets:
    def __init__(self, cells: CellBook) -> None:
        self._cells = cells
        self._bound: dict[Address, _Bound] = {}
        self._next_key = 1
        self._workers = 0

    def bind(self, listeners: Sequence[ListenerSettings], workers: int) -> tuple[ListenerView, ...]:
        """Make what is missing, for `workers` workers; what is listened on already stays as it is.

        Sockets no longer wanted stay open too, until `release_others`: their clients have not been served yet.
        Raises BindFailed and undoes what this call made.
        """
        made: list[_Bound] = []
        grown: list[socket.socket] = []
        try:
            made.extend(self._bind(listener.address) for listener in listeners if listener.address not in self._bound)
            for bound in self._bound.values():
                while bound.address.path is None and len(bound.sockets) < workers:
                    grown.append(_tcp_socket(bound.address, share=True))
                    bound.sockets.append(grown[-1])
        except OSError as exc:
            for bound in self._bound.values():
                bound.sockets = [sock for sock in bound.sockets if sock not in grown]
            for sock in grown:
                sock.close()
            for bound in made:
                self._close(bound)
            address = exc.args[2] if len(exc.args) > 2 else ""
            raise BindFailed(f"cannot listen on {address}: {_reason(exc)}") from exc
        self._workers = max(self._workers, workers)
        return tuple(
            ListenerView(self._bound[listener.address].key, self._bound[listener.address].cell, listener)
            for listener in listeners
        )

    def for_worker(self, row: int, listeners: Iterable[ListenerView]) -> list[int]:
        """The descriptors of worker `row` (0-based) in the order of `listeners`."""
        return [self._bound[listener.settings.address].fd_of(row) for listener in listeners]

    def release_others(self, keep: Iterable[ListenerView], workers: int) -> None:
        """Close what no table names any more. Call it once every worker has applied the table."""
        kept = {listener.key for listener in keep}
        for bound in list(self._bound.values()):
            if bound.key not in kept:
                self._close(bound)
            elif bound.address.path is None:
                for sock in bound.sockets[workers:]:
                    sock.close()
                del bound.sockets[workers:]

    def close(self) -> None:
        for bound in list(self._bound.values()):
            self._close(bound)

    def _bind(self, address: Address) -> _Bound:
        try:
            first = _unix_socket(address.path) if address.path is not None else _tcp_socket(address, share=False)
        except OSError as exc:
            exc.args = (exc.errno, exc.strerror, str(address))
            raise
        bound = _Bound(address, self._next_key, self._cells.take(), [first])
        self._next_key += 1
        self._bound[address] = bound
        return bound

    def _close(self, bound: _Bound) -> None:
        del self._bound[bound.address]
        self._cells.give_back(bound.cell)
        for sock in bound.sockets:
            sock.close()
        if bound.address.path is not None:
            try:
                os.unlink(bound.address.path)
            except OSError:
                return  # somebody else's cleaning up is as good as ours


def _tcp_socket(address: Address, *, share: bool) -> socket.socket:
    """A listening socket. With `share` it joins sockets of ours that hold the port already.

    The first one is bound without SO_REUSEPORT, so a port that another program holds is found in use although that
    program may share it; only then the option is set, which lets our own others join.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    both = address.host == "" and socket.has_dualstack_ipv6() and os.path.exists("/proc/net/if_inet6")
    sock = socket.socket(socket.AF_INET6 if both else family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if both else 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted connections inherit it
        if share:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((address.host or ("::" if both else "0.0.0.0"), address.port))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _unix_socket(path: str) -> socket.socket:
    """A stale socket file (nobody answers) is replaced; anything else in its place is left alone."""
    if os.path.lexists(path):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError(17, "a file that is not a socket is in the way")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
            try:
                asking.connect(path)
            except (ConnectionRefusedError, FileNotFoundError):
                os.unlink(path)
            else:
                raise OSError(98, "address already in use")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.bind(path)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _reason(exc: OSError) -> str:
    if isinstance(exc, PermissionError):
        return "permission denied (ports below 1024 need root or CAP_NET_BIND_SERVICE)"
    return (exc.strerror or str(exc)).lower()
