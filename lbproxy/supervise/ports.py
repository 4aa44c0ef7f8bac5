"""The ports for `{port}`: a range below the ephemeral one, in an order that uses no port again soon.

Any outgoing connection can take a port of the ephemeral range, and a connect to a dead port there can even connect to
itself (PEERS.md 6).
"""

import random
import socket
from collections import deque

from lbproxy.errors import LbproxyError


class NoFreePort(LbproxyError):
    """Every port of the range is held, by backends or by other programs."""


class Ports:
    """A port is held from `take` to `give_back`; then it goes to the end of the queue."""

    def __init__(self, first: int, last: int) -> None:
        self._held: set[int] = set()
        self._first, self._last = first, last
        self._queue: deque[int] = deque()
        self.change(first, last)

    def change(self, first: int, last: int) -> None:
        """Use another range from now on. Ports that are held stay held."""
        self._first, self._last = first, last
        free = [port for port in range(first, last + 1) if port not in self._held]
        # The start is random: a restarted lbproxy must not meet connections of the one before, and two of them must not
        # compete for the same ports.
        turn = random.randrange(len(free)) if free else 0
        self._queue = deque(free[turn:] + free[:turn])

    def take(self) -> int:
        """A port that no program listens on. Raises NoFreePort."""
        # The first round is without SO_REUSEADDR: it skips ports with connections in TIME_WAIT. A program that does not
        # set that option could not use them. When only such ports are left, most programs can use one.
        for reuse in (False, True):
            for _ in range(len(self._queue)):
                port = self._queue.popleft()
                if is_free(port, reuse=reuse):
                    self._held.add(port)
                    return port
                self._queue.append(port)
        ours = sum(self._first <= port <= self._last for port in self._held)
        others = self._last - self._first + 1 - ours
        raise NoFreePort(
            f"no free port in {self._first}-{self._last} ([proxy] ports): {ours} held by backends, "
            f"{others} by other programs"
        )

    def hold(self, port: int) -> None:
        """A backend has this port already."""
        self._held.add(port)
        if port in self._queue:
            self._queue.remove(port)

    def give_back(self, port: int) -> None:
        if port in self._held:
            self._held.remove(port)
            if self._first <= port <= self._last:
                self._queue.append(port)


def is_free(port: int, *, reuse: bool = False) -> bool:
    """Whether a program could listen on `port`, on any address of this machine."""
    try:
        try:
            probe = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
        except OSError:  # a kernel without IPv6
            return _binds(socket.socket(socket.AF_INET, socket.SOCK_STREAM), "0.0.0.0", port, reuse=reuse)
        try:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        except OSError:
            probe.close()
            return _binds(socket.socket(socket.AF_INET, socket.SOCK_STREAM), "0.0.0.0", port, reuse=reuse)
        return _binds(probe, "::", port, reuse=reuse)
    except OSError:  # no descriptors left: no port can be used
        return False


def _binds(probe: socket.socket, host: str, port: int, *, reuse: bool) -> bool:
    with probe:
        if reuse:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            if reuse:
                probe.listen(1)  # with SO_REUSEADDR two sockets may be bound, but only one may listen
        except OSError:
            return False
        return True
