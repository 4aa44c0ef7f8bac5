"""The access log as `lbproxy logs access` shows it: its file, the workers' newest lines, and what comes."""

import socket
from contextlib import aclosing

import pytest
import trio
import trio.testing
from support.trio_test import trio_test

from lbproxy.control.access_lines import access_lines, line_time, tail_of
from lbproxy.link.channel import Channel
from lbproxy.link.messages import ToControl, ToWorker
from lbproxy.telemetry.line_copies import LineCopies

NOON = '127.0.0.1 - - [01/Jan/2026:12:00:00 +0000] "GET /{} HTTP/1.1" 200 5 "-" "-"'


class FakeWorker:
    """The end of a link that a worker has."""

    def __init__(self):
        ours, theirs = socket.socketpair()
        self.channel, self.link = Channel(ours, ToControl), Channel(theirs, ToWorker)
        self.copies = LineCopies()

    async def run(self):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.channel.run_writer)
            while (message := await self.link.receive()) is not None:
                (fd,) = self.link.take_fds(1)
                self.copies.add(socket.socket(fileno=fd), follow=message.follow)

    def end(self):
        self.copies.close()
        self.channel.close()
        self.link.close()


class FakeWorkers:
    def __init__(self, count):
        self.all = {pid: FakeWorker() for pid in range(count)}
        self.changed = trio.Event()

    def channels(self):
        return {pid: worker.channel for pid, worker in self.all.items()}

    async def wait_channels(self, known):
        while set(self.all) <= set(known):
            await self.changed.wait()


async def with_workers(count, test):
    workers = FakeWorkers(count)
    async with trio.open_nursery() as nursery:
        for worker in workers.all.values():
            nursery.start_soon(worker.run)
        await test(workers, nursery)
        nursery.cancel_scope.cancel()
    for worker in workers.all.values():
        worker.end()


async def lines_of(*arguments, **options):
    options = {"count": 100, "since": 0.0, "follow": None, **options}
    async with aclosing(access_lines(*arguments, **options)) as lines:
        return [values["line"] async for values in lines]


@trio_test
async def test_without_a_file_the_workers_have_the_lines():
    async def test(workers, nursery):
        workers.all[0].copies.put((NOON.format("b") + "\n").encode())
        workers.all[1].copies.put((NOON.format("a").replace("12:00:00", "11:59:59") + "\n").encode())
        assert await lines_of(None, workers) == [NOON.format("a").replace("12:00:00", "11:59:59"), NOON.format("b")]
        assert await lines_of(None, workers, count=1) == [NOON.format("b")]
        assert await lines_of(None, workers, since=line_time(NOON)) == [NOON.format("b")]

    await with_workers(2, test)


@trio_test
async def test_a_follower_gets_the_file_then_what_is_not_in_it_yet_then_what_comes(tmp_path):
    path = tmp_path / "access.log"
    path.write_text("old\none\n")

    async def test(workers, nursery):
        workers.all[0].copies.put(b"one\ntwo\n")
        seen, stopped, more = [], trio.Event(), trio.Event()

        async def follow():
            async for values in access_lines(str(path), workers, count=2, since=0.0, follow=stopped):
                seen.append(values["line"])
                more.set()

        async def wait_for(line):
            nonlocal more
            while line not in seen:
                more = trio.Event()
                await more.wait()

        nursery.start_soon(follow)
        await wait_for("two")
        workers.all[0].copies.put(b"three\n")
        await wait_for("three")
        workers.all[7] = FakeWorker()
        nursery.start_soon(workers.all[7].run)
        workers.all[7].copies.put(b"of a new worker\n")
        workers.changed.set()
        await wait_for("of a new worker")
        assert seen == ["one", "two", "three", "of a new worker"]
        stopped.set()

    await with_workers(1, test)


@trio_test
async def test_a_file_that_is_not_there_is_said(tmp_path):
    (line,) = await lines_of(str(tmp_path / "gone"), FakeWorkers(0))
    assert line.endswith("gone: No such file or directory")


def test_the_tail_of_a_huge_file_is_whole_lines(tmp_path):
    path = tmp_path / "access.log"
    path.write_bytes(b"".join(b"%08d\n" % number for number in range(200_000)))
    lines = tail_of(str(path))
    assert lines[-1] == "00199999"
    assert {len(line) for line in lines} == {8}
    assert len(lines) < 120_000


@pytest.mark.parametrize(
    ("line", "time"),
    [
        (NOON, 1767268800.0),
        ('{"time":"2026-01-01T12:00:00.125Z","method":"GET"}', 1767268800.125),
        ("rubbish [01/Foo/2026:12:00:00 +0000]", None),
        ("", None),
    ],
)
def test_the_time_of_a_line_is_found(line, time):
    assert line_time(line) == time
