"""Listening sockets: made before anything else, kept open by control, one per worker and address (DESIGN.md 2).

Does not know tables or workers: hands out descriptors by listener key and worker.
"""

import contextlib
import os
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lbproxy.address import Address
from lbproxy.control.handed_on import HandedListener, HandedSockets
from lbproxy.control.listening_socket import (
    BACKLOG,
    SO_DETACH_FILTER,
    BindFailed,
    beside,
    drop_syns,
    is_stale,
    taken_socket,
    tcp_socket,
    unix_socket,
    why_not_bound,
)
from lbproxy.control.passed_sockets import NotPassed, PassedSockets
from lbproxy.control.socket_files import permissions_of, permit
from lbproxy.link.grid import CellBook
from lbproxy.model import ListenerView
from lbproxy.settings import ListenerSettings


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
    permissions: tuple[int, int] | None = None  # of the path where the settings say nothing: mode and group
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
                self.sockets.append(tcp_socket(self.address, share=True, hidden=self.hidden))
                continue
            try:
                self.sockets.append(beside(self.sockets[0], hidden=self.hidden))
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

    def permit(self, settings: ListenerSettings) -> None:
        """Whom the file of a unix socket lets in. Raises OSError."""
        path = self.address.path
        if path is not None and os.stat(path).st_ino == self.inode:
            permit(path, settings, self.permissions)

    def show(self, settings: ListenerSettings) -> None:
        with contextlib.suppress(OSError):  # another program has removed the file
            self.permit(settings)
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
                drop_syns(sock)
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

    def hand_on(self) -> HandedSockets:
        return HandedSockets(
            self._next_key,
            tuple(
                HandedListener(
                    bound.address,
                    bound.key,
                    bound.cell,
                    tuple(sock.fileno() for sock in bound.sockets),
                    bound.is_shared,
                    bound.why_shared,
                    bound.inode,
                    bound.listening,
                    bound.hidden,
                    bound.joins,
                    bound.permissions,
                )
                for bound in self._bound.values()
            ),
        )

    def take_over(self, handed: HandedSockets) -> None:
        """Go on with the sockets of an earlier program of this control: their clients have noticed nothing."""
        self._next_key = handed.next_key
        for one in handed.bound:
            sockets = [taken_socket(fd) for fd in one.sockets_fds]
            bound = self._bound[one.address] = _Bound(one.address, one.key, one.cell, sockets, one.is_shared)
            bound.why_shared, bound.inode, bound.listening = one.why_shared, one.inode, one.listening
            bound.hidden, bound.joins, bound.permissions = one.hidden, one.joins, one.permissions

    def views(self, listeners: Sequence[ListenerSettings]) -> tuple[ListenerView, ...]:
        """Return the views of listeners that are bound."""
        return tuple(
            ListenerView(self._bound[listener.address].key, self._bound[listener.address].cell, listener)
            for listener in listeners
        )

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
            for address, listener in {listener.address: listener for listener in listeners}.items():
                bound = self._bound.get(address) or self._bind(address, hidden=hidden)
                bound.grow(workers)
                if address not in before:
                    bound.permit(listener)
                    bound.listen(workers)
                # An additional socket of an address listens when its worker is there: see `for_worker`.
        except (OSError, RuntimeError, ValueError, NotPassed) as exc:
            for bound in list(self._bound.values()):
                if bound.address not in before:
                    self._close(bound)
                else:
                    bound.shrink(before[bound.address])
            raise BindFailed(f"cannot listen on {address}: {why_not_bound(exc, address)}") from exc
        return self.views(listeners)

    def why_not(self, address: Address) -> str | None:
        """Why `bind` could not listen on an address; None if it could. No client sees anything of the attempt."""
        if address in self._bound:
            return None
        try:
            if address.passed is not None:
                with self._passed.open(address.passed) as sock:
                    self._refuse_twice(sock)
            elif address.path is not None:
                is_stale(address.path)
            else:
                tcp_socket(address, share=self._joins(address), hidden=False, listen=False).close()
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
            self._bound[view.settings.address].show(view.settings)

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
            first = tcp_socket(address, share=joins, hidden=hidden and not joins)
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
            bound.permissions = permissions_of(address.path)
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


def _overlap(one: Address, other: Address) -> bool:
    """Whether two different TCP addresses share a port, so that only SO_REUSEPORT lets both be bound."""
    same_port = one.port == other.port and one.port > 0  # 0: a path, or a passed socket
    return same_port and not {one.host, other.host}.isdisjoint(_EVERY_HOST)


_EVERY_HOST = ("", "0.0.0.0", "::")
