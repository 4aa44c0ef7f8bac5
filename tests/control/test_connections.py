"""Paging over workers, and workers that do not answer."""

import pytest
import trio
from support.trio_test import trio_test

from control.fakes import FakeWorkers
from lbproxy.control.api_server import Declined
from lbproxy.control.connections import OpenConnections
from lbproxy.link.messages import AskConnections, Closed, ConnectionRow, Connections


def row(number):
    return ConnectionRow(number, "127.0.0.1:1", "public", "idle", None, 1.0, 0, 2.0004, None, None, None)


class Workers(FakeWorkers):
    """Each worker has these connections. A silent one never answers."""

    def __init__(self, numbers, silent=()):
        super().__init__()
        self.numbers = numbers
        self.silent = silent
        self.serving = sorted(numbers)

    def hear(self, worker, message):
        self.hearers[type(message)](worker, message)

    def post(self, worker, message):
        if worker in self.silent:
            return
        if isinstance(message, AskConnections):
            rows = [row(number) for number in self.numbers[worker] if number > message.after]
            page = tuple(rows[: message.limit])
            self.hear(worker, Connections(message.ask, page[:1], is_last=False))
            self.hear(worker, Connections(message.ask, page[1:], True, len(rows) > len(page)))
            self.hear(worker + 1, Connections(message.ask, page, is_last=True))  # not the one that was asked
        else:
            self.hear(worker, Closed(message.ask, "cut" if message.number in self.numbers[worker] else ""))


class Fleet:
    pools = {}


async def all_pages(found, limit):
    pages, query = [], {"limit": str(limit)}
    while True:
        page = await found.page(query)
        pages.append([one["id"] for one in page["connections"]])
        if page["next"] is None:
            return pages
        query["after"] = page["next"]


@trio_test
async def test_pages_go_on_from_worker_to_worker():
    found = OpenConnections(Workers({1: [1, 2, 3], 2: [1], 3: [], 4: [5, 6]}), Fleet())
    assert await all_pages(found, 1000) == [["w1-1", "w1-2", "w1-3", "w2-1", "w4-5", "w4-6"]]
    assert await all_pages(found, 2) == [["w1-1", "w1-2"], ["w1-3", "w2-1"], ["w4-5", "w4-6"]]
    pages = await all_pages(found, 3)
    assert [id for page in pages for id in page] == ["w1-1", "w1-2", "w1-3", "w2-1", "w4-5", "w4-6"]
    assert (await found.page({}))["connections"][0]["silent_s"] == 2.0


@trio_test(clock="autojump")
async def test_a_worker_that_does_not_answer_is_named_and_the_others_are_listed():
    found = OpenConnections(Workers({1: [1], 2: [2]}, silent=[1]), Fleet())
    page = await found.page({})
    assert ([one["id"] for one in page["connections"]], page["silent_workers"]) == (["w2-2"], [1])
    with pytest.raises(Declined) as declined:
        await found.close("w1-1")
    assert declined.value.answer.status == 504
    assert found._waiting == {}
    assert await found.close("w2-2") == {"connection": "w2-2", "how": "cut"}
    await trio.lowlevel.checkpoint()


@trio_test
async def test_what_no_connection_is_called_is_refused():
    found = OpenConnections(Workers({1: [1]}), Fleet())
    for id in ("w1-2", "w2-1", "w0-1", "w1-0", "w1", "", "w1-" + "9" * 40, None, 7):
        with pytest.raises(Declined):
            await found.close(id)
    for query in ({"limit": "0"}, {"limit": "9" * 50}, {"after": "x"}, {"source": "web.1"}):
        with pytest.raises(Declined):
            await found.page(query)
