"""The counts that every process must see, in one small shared memory: a row per worker, a column (cell) per backend,
pool and listener. Behind them the connections of clients, by a hash of their address (worker/front/client_counts.py).

A row has one writer, its worker; control and the other workers only read. Each counter is an aligned 64-bit integer, so
a reader sees an old value or a new one, never half of each. The memory outlives a worker: totals continue where its
predecessor was killed, and only control clears what a dead worker still held.
"""

import mmap
import os
from collections.abc import Callable, Sequence
from enum import IntEnum


class Counter(IntEnum):
    """The counters of a cell. The first six are gauges (leases in hand), the others totals."""

    LEASES = 0
    REQUEST = 1  # the five kinds, in the order of model.LeaseKind; this one is never written, see Grid.sum
    TRANSFER = 2
    STREAM = 3
    WEBSOCKET = 4
    TCP = 5
    REQUESTS = 6
    FAILED = 7  # answered by us with 5xx, or broken off
    CUT = 8  # leases ended by their grace
    WEBSOCKETS_CLOSED = 9  # goodbyes said
    CONNECTIONS = 10  # open client connections: gauge of a listener's cell
    ACCEPTED = 11


GAUGES = (*range(Counter.LEASES, Counter.TCP + 1), Counter.CONNECTIONS)
LONGER = range(Counter.TRANSFER, Counter.TCP + 1)
WIDTH = len(Counter)
ITEM_BYTES = 8
# Where the clients stand in the memory, however many rows the counters have now or get later. No page of it takes memory
# before something is written there.
CLIENTS_AT = 1 << 32
SALT_BYTES = 16
CLIENT_CELLS = 1 << 17  # of a row
CLIENT_BYTES = 4


class Grid:
    """`values[base(row, cell) + counter]` is the counter; the hot path keeps the base and adds."""

    def __init__(self, fd: int, rows: int, cells: int) -> None:
        self.fd = fd
        self.rows = rows
        self.cells = cells
        self._memory = mmap.mmap(fd, rows * cells * WIDTH * ITEM_BYTES)
        self.values = memoryview(self._memory).cast("q")
        self._clients = mmap.mmap(fd, mmap.PAGESIZE + rows * CLIENT_CELLS * CLIENT_BYTES, offset=CLIENTS_AT)
        self.salt = self._clients[:SALT_BYTES]  # so that nobody outside knows which addresses share a cell
        self.clients = memoryview(self._clients)[mmap.PAGESIZE :].cast("I")

    @classmethod
    def create(cls, rows: int, cells: int) -> "Grid":
        fd = os.memfd_create("lbproxy-grid", os.MFD_CLOEXEC)
        os.pwrite(fd, os.urandom(SALT_BYTES), CLIENTS_AT)
        return cls.extend(fd, rows, cells)

    @classmethod
    def extend(cls, fd: int, rows: int, cells: int) -> "Grid":
        """The grid of an earlier program, with at least `rows` rows. Whoever has mapped it already sees the rows that
        it knows."""
        size = CLIENTS_AT + mmap.PAGESIZE + rows * CLIENT_CELLS * CLIENT_BYTES
        if os.fstat(fd).st_size < size:
            os.ftruncate(fd, size)
        return cls(fd, rows, cells)

    def base(self, row: int, cell: int) -> int:
        return (row * self.cells + cell) * WIDTH

    def sum(self, cell: int, counter: int) -> int:
        """The sum over all workers. Requests (nearly all leases) are not counted, but LEASES minus the other kinds."""
        if counter == Counter.REQUEST:
            return max(0, self.sum(cell, Counter.LEASES) - sum(self.sum(cell, kind) for kind in LONGER))
        values, step, at = self.values, self.cells * WIDTH, cell * WIDTH + counter
        total = 0
        for _ in range(self.rows):
            total += values[at]
            at += step
        return total

    def summing(self, counter: int) -> Callable[[int], int]:
        """The `sum` of one counter, as a function of the cell: for hot paths, which ask for gauges that are written.

        0.08 us with one row, 0.13 us with two, 0.17 us with more (0.6 us as a loop). An upgrade leaves twice the rows.
        """
        values, row = self.values, self.cells * WIDTH
        if self.rows == 1:
            return lambda cell: values[cell * WIDTH + counter]
        if self.rows == 2:
            return lambda cell: values[cell * WIDTH + counter] + values[row + cell * WIDTH + counter]
        return lambda cell: sum(values[cell * WIDTH + counter :: row])

    def clear_gauges(self, row: int) -> None:
        """A worker is dead: what it had in hand is gone, what it had counted stays."""
        for cell in range(self.cells):
            base = self.base(row, cell)
            for counter in GAUGES:
                self.values[base + counter] = 0
        length = CLIENT_CELLS * CLIENT_BYTES
        self._clients.madvise(mmap.MADV_REMOVE, mmap.PAGESIZE + row * length, length)  # zeros without pages

    def clear_cell(self, cell: int) -> None:
        for row in range(self.rows):
            base = self.base(row, cell)
            for counter in range(WIDTH):
                self.values[base + counter] = 0

    def close(self) -> None:
        self.values.release()
        self.clients.release()
        self._memory.close()
        self._clients.close()
        os.close(self.fd)


class CellBook:
    """Hands out cells. Control has the only one."""

    def __init__(self, grid: Grid, free: Sequence[int] | None = None) -> None:
        """`free`: the cells that `take` may give, the last one first; all of them without."""
        self._grid = grid
        self._free = list(free) if free is not None else list(range(grid.cells - 1, -1, -1))

    @property
    def free(self) -> tuple[int, ...]:
        return tuple(self._free)

    def take(self) -> int:
        """A cell whose counters are all 0. Raises RuntimeError when there are more backends than the grid has cells."""
        if not self._free:
            raise RuntimeError(f"more than {self._grid.cells} backends, pools and listeners at once")
        cell = self._free.pop()
        self._grid.clear_cell(cell)
        return cell

    def give_back(self, cell: int) -> None:
        """Last in, last out: a cell rests as long as possible before it is used again."""
        self._free.insert(0, cell)
