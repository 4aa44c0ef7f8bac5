"""CPU time of an owner is the sum of all its processes, dead ones too; memory is that of the living."""

import pytest
import trio
from support.trio_test import trio_test

from lbproxy.control import usage_book
from lbproxy.control.usage_book import UsageBook
from lbproxy.supervise.usage import Usage


@trio_test(clock="autojump")
async def test_cpu_time_never_goes_back() -> None:
    book = UsageBook()
    owner = ("web", "web.1")
    assert (book.cpu_s(owner), book.resident_bytes(owner), book.cpu_share(7)) == (0.0, 0, None)
    seen = []
    looks: list[dict[int, Usage]] = [
        {7: Usage(2.0, 100)},
        {7: Usage(2.5, 120), 8: Usage(0.5, 50)},  # a reload: both are alive
        {8: Usage(1.0, 60)},
        {8: Usage(0.8, 60)},  # a child of it has ended, and nobody waited for it
        {},
    ]
    for look in looks:
        book.take([(owner, 7), (owner, 8)], look)
        seen.append((book.cpu_s(owner), book.resident_bytes(owner), book.cpu_share(7), book.cpu_share(8)))
        await trio.sleep(2)
    assert seen == [
        (2.0, 100, None, None),
        (3.0, 170, 0.25, None),
        (3.5, 60, None, 0.25),
        (3.5, 60, None, 0.0),
        (3.5, 0, None, None),
    ]


@trio_test
async def test_it_looks_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_book, "EVERY_S", 0.01)
    looked, enough = [], trio.Event()

    def read(pids: object) -> dict[int, Usage]:
        looked.append(pids)
        if len(looked) == 3:
            trio.from_thread.run_sync(enough.set)
        return {5: Usage(1.0, 10)}

    book = UsageBook(read)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(book.run, lambda: [("1", 5)])
        await book.wait_look()
        await enough.wait()
        nursery.cancel_scope.cancel()
    assert looked == [{5}] * 3
    assert (book.cpu_s("1"), book.resident_bytes("1"), book.resident_bytes_of(5)) == (1.0, 10, 10)
    assert book.resident_bytes_of(None) is None


@trio_test
async def test_what_was_counted_before_an_exec_is_not_counted_again():
    before, after = UsageBook(), UsageBook()
    before.take([("web", 44)], {44: Usage(5.0, 0)})
    after.take_over(before.hand_on())
    after.take([("web", 44)], {44: Usage(6.0, 0)})
    assert after.cpu_s("web") == 6.0
