"""Where `{port}` comes from: a range below the ephemeral one, in an order that uses no port again soon.

A port in the ephemeral range can be taken by any outgoing connection, and a connect to a dead one there can even
connect to itself (PEERS.md 6).
"""

import random
import socket
from collections import deque

from lbproxy.errors import LbproxyError


class NoFreePort(LbproxyError):
    """Every port of the range is held, by us or by somebody else."""


class Ports:
    """A port is held from `take` to `give_back`; then it goes to the end of the row."""

    def __init__(self, first: int, last: int) -> None:
        self._held: set[int] = set()
        self._first, self._last = first, last
        self._row: deque[int] = deque()
        self.change(first, last)

    def change(self, first: int, last: int) -> None:
        """Another range from now on. What is held stays held."""
        self._first, self._last = first, last
        row = [port for port in range(first, last + 1) if port not in self._held]
        # Begin anywhere: a restarted lbproxy must not meet the connections of its predecessor, nor two each other.
        turn = random.randrange(len(row)) if row else 0
        self._row = deque(row[turn:] + row[:turn])

    def take(self) -> int:
        """A port that nobody listens on. Raises NoFreePort."""
        # First without SO_REUSEADDR: no port that still has connections in TIME_WAIT, which would stop a program that
        # does not set it. When only such ports are left, most programs can do with one.
        for reuse in (False, True):
            for _ in range(len(self._row)):
                port = self._row.popleft()
                if is_free(port, reuse=reuse):
                    self._held.add(port)
                    return port
                self._row.append(port)
        ours = sum(self._first <= port <= self._last for port in self._held)
        others = self._last - self._first + 1 - ours
        raise NoFreePort(
            f"no free port in {self._first}-{self._last} ([proxy] ports): {ours} held by backends, "
            f"{others} by other programs"
        )

    def give_back(self, port: int) -> None:
        if port in self._held:
            self._held.remove(port)
            if self._first <= port <= self._last:
                self._row.append(port)


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
    except OSError:  # no descriptors: as good as none free
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
