"""The counts that every process must see, in one small shared memory: a row per worker, a column (cell) per backend,
pool and listener. Behind them stand the row's connections of clients, by a hash of their address
(worker/front/client_counts.py).

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
CLIENT_CELLS = 1 << 17  # of a row; no page of them takes memory before something is counted there
CLIENT_BYTES = 4
SALT_BYTES = 16
HEAD_BYTES = mmap.PAGESIZE  # before the first row


class Grid:
    """`values[base(row, cell) + counter]` is the counter; the hot path keeps the base and adds."""

    def __init__(self, fd: int, rows: int, cells: int) -> None:
        self.fd = fd
        self.rows = rows
        self.cells = cells
        self._row_bytes, self._counters_bytes = _row_bytes(cells), _counters_bytes(cells)
        self.row_items = self._row_bytes // ITEM_BYTES  # from a row's counter to the same one of the next row
        self.client_step = self._row_bytes // CLIENT_BYTES  # the same, for `clients`
        self._memory = mmap.mmap(fd, HEAD_BYTES + rows * self._row_bytes)
        whole = memoryview(self._memory)
        self.values = whole[HEAD_BYTES:].cast("q")
        self.clients = whole[HEAD_BYTES + self._counters_bytes :].cast("I")
        self.salt = bytes(whole[:SALT_BYTES])  # so that nobody outside knows which addresses share a cell

    @classmethod
    def create(cls, rows: int, cells: int) -> "Grid":
        fd = os.memfd_create("lbproxy-grid", os.MFD_CLOEXEC)
        os.ftruncate(fd, HEAD_BYTES + rows * _row_bytes(cells))
        os.pwrite(fd, os.urandom(SALT_BYTES), 0)
        return cls(fd, rows, cells)

    @classmethod
    def extend(cls, fd: int, rows: int, cells: int) -> "Grid":
        """The grid of an earlier program, with at least `rows` rows. Whoever has mapped it already sees the rows that
        it knows."""
        size = HEAD_BYTES + rows * _row_bytes(cells)
        if os.fstat(fd).st_size < size:
            os.ftruncate(fd, size)
        return cls(fd, rows, cells)

    def base(self, row: int, cell: int) -> int:
        return row * self.row_items + cell * WIDTH

    def sum(self, cell: int, counter: int) -> int:
        """The sum over all workers. Requests (nearly all leases) are not counted, but LEASES minus the other kinds."""
        if counter == Counter.REQUEST:
            return max(0, self.sum(cell, Counter.LEASES) - sum(self.sum(cell, kind) for kind in LONGER))
        values, step, at = self.values, self.row_items, cell * WIDTH + counter
        total = 0
        for _ in range(self.rows):
            total += values[at]
            at += step
        return total

    def summing(self, counter: int) -> Callable[[int], int]:
        """The `sum` of one counter, as a function of the cell: for hot paths, which ask for gauges that are written.

        0.08 us with one row, 0.13 us with two, 0.17 us with more (0.6 us as a loop). An upgrade leaves twice the rows.
        """
        values, row = self.values, self.row_items
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
        clients_at = HEAD_BYTES + row * self._row_bytes + self._counters_bytes
        self._memory.madvise(mmap.MADV_REMOVE, clients_at, CLIENT_CELLS * CLIENT_BYTES)  # zeros without pages

    def clear_cell(self, cell: int) -> None:
        for row in range(self.rows):
            base = self.base(row, cell)
            for counter in range(WIDTH):
                self.values[base + counter] = 0

    def close(self) -> None:
        self.values.release()
        self.clients.release()
        self._memory.close()
        os.close(self.fd)


# A row is one piece of the memory, so that more rows can be added behind the last one and none moves.
def _row_bytes(cells: int) -> int:
    return _counters_bytes(cells) + CLIENT_CELLS * CLIENT_BYTES


def _counters_bytes(cells: int) -> int:
    return -(-cells * WIDTH * ITEM_BYTES // mmap.PAGESIZE) * mmap.PAGESIZE


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
