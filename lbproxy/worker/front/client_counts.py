"""How many connections each client has, over all workers: `limits.connections_per_client`.

A client counts in two cells of the shared memory that a keyed hash of its address names; it has as many connections as
the smaller sum of the two says. So a client is refused for the connections of others only where both of its cells are
full of them: beside 20,000 other clients no one of 100,000 with a limit of 5, two with a limit of 3 (measured).
Of an IPv6 address the first 64 bits count: that is what one customer gets. Knows no socket.
"""

from hashlib import blake2b
from ipaddress import IPv6Address

from lbproxy.link.grid import CLIENT_CELLS, Grid

Cells = tuple[int, ...]
NO_LIMIT = 1 << 62


class ClientCounts:
    def __init__(self, grid: Grid, row: int) -> None:
        self._counts = grid.clients
        self._salt = grid.salt
        self._step = grid.client_step
        self._base = row * self._step

    def came(self, ip: bytes, most: int) -> Cells:
        """Count one connection more, unless the client has `most` already: then (). `ip`: an address as text."""
        name = IPv6Address(ip.decode()).packed[:8] if b":" in ip else ip
        digest = int.from_bytes(blake2b(name, digest_size=8, key=self._salt).digest(), "big")
        cells = digest % CLIENT_CELLS, (digest >> 32) % CLIENT_CELLS
        counts = self._counts
        if min(sum(counts[cell :: self._step]) for cell in cells) >= most:
            return ()
        for cell in cells:
            counts[self._base + cell] += 1
        return cells

    def left(self, cells: Cells) -> None:
        """`cells`: as `came` gave them."""
        for cell in cells:
            self._counts[self._base + cell] -= 1
