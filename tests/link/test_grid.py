"""Counts in shared memory: one writer per row, sums over all, and a history that outlives the worker."""

import mmap
import os
from collections.abc import Iterator

import pytest

from lbproxy.link.grid import CLIENT_CELLS, GAUGES, ITEM_BYTES, WIDTH, CellBook, Counter, Grid
from lbproxy.model import LeaseKind

ROWS, CELLS = 3, 5
WRITTEN = set(Counter) - {Counter.REQUEST}


@pytest.fixture
def grid() -> Iterator[Grid]:
    grid = Grid.create(ROWS, CELLS)
    yield grid
    grid.close()


def test_every_counter_has_a_place_of_its_own(grid: Grid) -> None:
    places = [
        grid.base(row, cell) + counter for row in range(ROWS) for cell in range(CELLS) for counter in range(WIDTH)
    ]
    assert len(set(places)) == ROWS * CELLS * WIDTH
    for place in places:
        grid.values[place] = 1
    assert not any(grid.clients[cell :: grid.client_step].tolist() != [0] * ROWS for cell in (0, CLIENT_CELLS - 1))
    assert sum(grid.values) == len(places)


def test_a_new_grid_counts_nothing(grid: Grid) -> None:
    assert not any(grid.values)


def test_the_sum_is_over_all_workers_and_one_cell(grid: Grid) -> None:
    for row in range(ROWS):
        for cell in range(CELLS):
            grid.values[grid.base(row, cell) + Counter.LEASES] = 10**row * (cell + 1)
    assert grid.sum(2, Counter.LEASES) == 333
    assert grid.sum(2, Counter.TRANSFER) == 0


def test_requests_are_the_leases_of_no_longer_kind(grid: Grid) -> None:
    counts = {Counter.LEASES: 9, Counter.TRANSFER: 1, Counter.STREAM: 2, Counter.WEBSOCKET: 1, Counter.TCP: 1}
    for row in range(ROWS):
        for counter, number in counts.items():
            grid.values[grid.base(row, 1) + counter] = number
    assert grid.sum(1, Counter.REQUEST) == 4 * ROWS
    grid.values[grid.base(0, 1) + Counter.LEASES] = 0  # read between two writes of a worker
    assert grid.sum(1, Counter.REQUEST) == 4 * (ROWS - 1) - 5
    grid.values[grid.base(1, 1) + Counter.LEASES] = 0
    assert grid.sum(1, Counter.REQUEST) == 0


def test_another_process_reads_what_a_worker_counts(grid: Grid) -> None:
    other = Grid(os.dup(grid.fd), ROWS, CELLS)
    other.values[other.base(1, 4) + Counter.REQUESTS] += 7
    assert grid.sum(4, Counter.REQUESTS) == 7
    other.close()


def test_a_child_does_not_inherit_it(grid: Grid) -> None:
    assert not os.get_inheritable(grid.fd)


def test_totals_survive_their_worker_and_gauges_do_not(grid: Grid) -> None:
    for row in range(ROWS):
        for cell in range(CELLS):
            for counter in Counter:
                grid.values[grid.base(row, cell) + counter] = 1
    grid.clear_gauges(1)
    for cell in range(CELLS):
        for counter in WRITTEN:
            assert grid.sum(cell, counter) == (ROWS - 1 if counter in GAUGES else ROWS)


def test_a_cleared_cell_leaves_its_neighbours_alone(grid: Grid) -> None:
    for index in range(len(grid.values)):
        grid.values[index] = 1
    grid.clear_cell(2)
    for cell in range(CELLS):
        assert {grid.sum(cell, counter) for counter in WRITTEN} == {0 if cell == 2 else ROWS}


def test_the_kinds_of_lease_stand_in_the_order_of_their_counters() -> None:
    assert [Counter[kind.name] for kind in LeaseKind] == list(range(Counter.REQUEST, Counter.TCP + 1))


def test_a_gauge_may_go_below_zero_for_a_moment(grid: Grid) -> None:
    grid.values[grid.base(0, 0) + Counter.LEASES] -= 1
    grid.values[grid.base(1, 0) + Counter.LEASES] += 1
    assert grid.sum(0, Counter.LEASES) == 0


def test_a_closed_grid_lets_go_of_its_descriptor() -> None:
    grid = Grid.create(1, 1)
    grid.close()
    with pytest.raises(OSError):
        os.fstat(grid.fd)


def test_a_grid_that_is_smaller_than_announced_is_refused() -> None:
    fd = os.memfd_create("small")
    os.ftruncate(fd, WIDTH * ITEM_BYTES)
    with pytest.raises((ValueError, mmap.error)):
        Grid(fd, 2, mmap.PAGESIZE)
    os.close(fd)


def test_cells_are_taken_once(grid: Grid) -> None:
    book = CellBook(grid)
    assert {book.take() for _ in range(CELLS)} == set(range(CELLS))
    with pytest.raises(RuntimeError, match="more than 5"):
        book.take()


def test_a_cell_begins_with_nothing_whatever_it_counted_before(grid: Grid) -> None:
    book = CellBook(grid)
    cell = book.take()
    for counter in Counter:
        grid.values[grid.base(2, cell) + counter] = 9
    book.give_back(cell)
    while (again := book.take()) != cell:
        pass
    assert {grid.sum(again, counter) for counter in Counter} == {0}


def test_a_cell_that_was_given_back_rests_as_long_as_possible(grid: Grid) -> None:
    book = CellBook(grid)
    first = book.take()
    book.give_back(first)
    assert [book.take() for _ in range(CELLS)][-1] == first


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_summing_says_for_each_cell_what_sum_says(rows: int) -> None:
    grid = Grid.create(rows, CELLS)
    for row in range(rows):
        for cell in range(CELLS):
            grid.values[grid.base(row, cell) + Counter.CONNECTIONS] = 10**row * (cell + 1)
    connections, leases = grid.summing(Counter.CONNECTIONS.value), grid.summing(Counter.LEASES.value)
    for cell in range(CELLS):
        assert connections(cell) == grid.sum(cell, Counter.CONNECTIONS) == int("1" * rows) * (cell + 1)
        assert leases(cell) == 0
    grid.close()


def test_more_rows_leave_the_others_where_they_are(grid: Grid) -> None:
    """As an upgrade has it: the workers before know fewer rows than those behind."""
    place = grid.base(ROWS - 1, 2) + Counter.LEASES
    client = (ROWS - 1) * grid.client_step + 7
    grid.values[place], grid.clients[client] = 5, 6
    more = Grid.extend(os.dup(grid.fd), 2 * ROWS, CELLS)
    assert (more.values[place], more.clients[client], more.salt) == (5, 6, grid.salt)
    more.values[more.base(2 * ROWS - 1, 2) + Counter.LEASES] = 1
    more.clients[(2 * ROWS - 1) * more.client_step + 7] = 1
    assert (more.sum(2, Counter.LEASES), grid.sum(2, Counter.LEASES)) == (6, 5)
    assert sum(more.clients[7 :: more.client_step]) == 7
    more.clear_gauges(ROWS - 1)
    assert (grid.values[place], grid.clients[client]) == (0, 0)
    assert more.sum(2, Counter.LEASES) == 1
    again = Grid.extend(os.dup(grid.fd), 2 * ROWS, CELLS)
    assert again.sum(2, Counter.LEASES) == 1
    again.close()
    more.close()
