"""Connections go from one worker process to another, whichever of the two dies on the way. Real processes."""

import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
import trio
from support.hiring import REQUEST, House, answer, house, pretender, until
from support.numbered import SWITCH, UPGRADE
from support.trio_test import trio_test

from lbproxy.control import old_workers
from lbproxy.control.moving import Moving
from lbproxy.control.worker_process import WorkerProcess
from lbproxy.link.grid import Counter
from lbproxy.settings import DrainSettings
from lbproxy.telemetry.events import Notice, WorkerExited, WorkerGaveAway


def texts(made: House) -> list[str]:
    return [event.text for event in made.saw(Notice) if isinstance(event, Notice)]


def retire(made: House) -> WorkerProcess:
    """Worker 1 is told to leave, as one of an earlier program."""
    worker = made.workers.live[1]
    worker.is_old = True
    old_workers.tell_to_leave(made.workers, 5.0, 0.0)
    return worker


async def leave(made: House) -> None:
    """Returns when worker 1 has gone."""
    worker = retire(made)
    await until(lambda: worker not in made.workers.live.values())


@trio_test(timeout_s=20)
async def test_sessions_go_to_the_other_worker_and_the_old_one_ends(tmp_path: Path) -> None:
    async with house() as made:
        made.mode = "tcp"
        made.access_path = str(tmp_path / "access.log")
        Moving(made.workers, made.events.append)
        one = await made.origin(b"one")
        await made.serve(one.view, workers=2)
        streams = [await made.connect() for _ in range(80)]
        for stream in streams:
            await stream.send_all(REQUEST)
            assert await answer(stream) == b"one"
        await leave(made)
        assert made.workers.moves_under_way() == 0
        (event,) = made.saw(WorkerGaveAway)
        assert isinstance(event, WorkerGaveAway)
        assert (event.worker, event.left, event.not_taken, event.why) == (1, 0, 0, None)
        assert 10 < event.moved < 70
        assert made.saw(WorkerExited) == []
        assert made.total(one.view.cell, Counter.TCP) == made.total(one.view.cell, Counter.LEASES) == 80
        assert made.total(made.listeners[0].cell, Counter.CONNECTIONS) == 80
        for stream in streams:
            await stream.send_all(REQUEST)
            assert await answer(stream) == b"one"
            await stream.aclose()
        await until(lambda: made.total(one.view.cell, Counter.LEASES) == 0)
        made.workers.reopen()
        path = tmp_path / "access.log"
        await until(lambda: path.read_bytes().count(b"\n") == 80)
        lines = [json.loads(line) for line in path.read_bytes().splitlines()]
        assert {line["request_bytes"] for line in lines} == {2 * len(REQUEST)}
        assert made.total(one.view.cell, Counter.REQUESTS) == 80


@trio_test(timeout_s=20)
async def test_idle_connections_go_to_the_other_worker_and_an_exchange_ends_where_it_is() -> None:
    async with house() as made:
        Moving(made.workers, made.events.append)
        one = await made.origin(b"one")
        await made.serve(one.view, workers=2)
        streams = [await made.connect() for _ in range(20)]
        for stream in streams:
            assert await made.ask(stream) == b"one"
        one.hold()
        asking = [await made.connect() for _ in range(8)]
        for stream in asking:
            await stream.send_all(REQUEST)
        await until(lambda: one.asked == 28)
        old = retire(made)
        await made.wait_saw(WorkerGaveAway)
        assert old in made.workers.live.values()
        one.free.set()
        for stream in asking:
            assert await answer(stream) == b"one"
        await until(lambda: old not in made.workers.live.values())
        for stream in streams:
            assert await made.ask(stream) == b"one"


@trio_test(timeout_s=20)
async def test_a_drain_waits_for_a_session_that_has_moved_to_a_worker_that_never_had_the_backend() -> None:
    async with house() as made:
        made.mode = "tcp"
        made.drain = DrainSettings(tcp_s=20.0)
        Moving(made.workers, made.events.append)
        one, two = await made.origin(b"one"), await made.origin(b"two", slot=2)
        await made.serve(one.view)
        stream = await made.connect()
        await stream.send_all(REQUEST)
        assert await answer(stream) == b"one"
        epoch = made.publish(two.view)
        made.bind(2)
        made.publish(two.view)
        made.workers.resize(2)
        await made.wait_serving(2)
        assert made.workers.live[2].is_drained(str(one.view.id), epoch)
        drained = trio.Event()

        async def wait() -> None:
            await made.workers.wait_drained(one.view.id, epoch)
            drained.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await leave(made)
            await trio.sleep(0.1)
            assert not drained.is_set()
            await stream.send_all(REQUEST)
            assert await answer(stream) == b"one"
            await stream.aclose()
            with trio.fail_after(3):
                await drained.wait()


@trio_test(timeout_s=20)
async def test_what_an_old_worker_had_given_outlives_its_death() -> None:
    async with house() as made:
        Moving(made.workers, made.events.append)
        one = await made.origin(b"one")
        await made.serve(one.view, workers=2)
        streams = [await made.connect() for _ in range(40)]
        for stream in streams:
            assert await made.ask(stream) == b"one"
        one.hold()
        asking = [await made.connect() for _ in range(12)]  # one of them keeps the old worker
        for stream in asking:
            await stream.send_all(REQUEST)
        await until(lambda: one.asked == 52)
        old = retire(made)
        await made.wait_saw(WorkerGaveAway)
        os.kill(old.process.pid, signal.SIGKILL)
        await until(lambda: old not in made.workers.live.values())
        one.free.set()
        for stream in streams:
            assert await made.ask(stream) == b"one"


@trio_test(timeout_s=20)
async def test_a_tunnel_that_cannot_be_moved_has_its_time_and_then_its_drain() -> None:
    """A WebSocket whose client has begun to close, and whose server says nothing."""

    async def switch(stream: trio.SocketStream) -> None:
        data = b""
        while not data.endswith(b"\r\n\r\n"):
            data += await stream.receive_some()
        await stream.send_all(SWITCH)
        await trio.sleep_forever()

    async with house() as made:
        made.drain = DrainSettings(websocket_s=0.1, goodbye_s=0.1)
        Moving(made.workers, made.events.append)
        one = await made.origin(b"one")
        one.serve = switch  # type: ignore[method-assign]
        await made.serve(one.view, workers=2)
        async with trio.open_nursery() as nursery:
            streams = [await made.connect() for _ in range(20)]
            for stream in streams:
                await stream.send_all(UPGRADE % 1)
                assert b" 101 " in await stream.receive_some()
                await stream.send_all(b"\x88\x82\0\0\0\0\x03\xe8")
            await until(lambda: made.total(one.view.cell, Counter.WEBSOCKET) == 20)
            await trio.sleep(0.1)
            worker = made.workers.live[1]
            worker.is_old = True
            old_workers.tell_to_leave(made.workers, 2.0, 0.8)
            (event,) = await made.wait_saw(WorkerGaveAway)
            assert isinstance(event, WorkerGaveAway)
            assert event.moved == 0
            assert event.left > 0
            began = trio.current_time()
            await until(lambda: worker not in made.workers.live.values())
            assert 0.7 < trio.current_time() - began < 3.0
            assert made.total(one.view.cell, Counter.WEBSOCKET) == 20 - event.left
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("after_s", [0.0, 0.02, 0.33, 0.4])
@trio_test(timeout_s=20)
async def test_a_stop_in_the_middle_of_a_move_ends_every_session_and_every_worker(after_s: float) -> None:
    async with house() as made:
        made.mode = "tcp"
        made.drain = DrainSettings(tcp_s=0.2)
        Moving(made.workers, made.events.append)
        one = await made.origin(b"one")
        await made.serve(one.view, workers=2)
        streams = [await made.connect() for _ in range(150)]
        await until(lambda: made.total(one.view.cell, Counter.TCP) == 150)
        retire(made)
        await trio.sleep(after_s)
        began = trio.current_time()
        await made.workers.stop(5.0)
        assert trio.current_time() - began < 3.0
        for stream in streams:
            with suppress(trio.BrokenResourceError):
                assert await stream.receive_some() == b""
        assert texts(made) == []
        assert made.total(one.view.cell, Counter.LEASES) == made.total(one.view.cell, Counter.TCP) == 0


# Pretenders: worker 1 gives one connection when it is told to, and says what becomes of it.

GIVER = (
    "welcome = await link.receive(); link.take_fds(1)",
    "from lbproxy.link.moved import MovedClient, MovedConnection, MovedKind",
    "from lbproxy.telemetry.events import Notice",
    "while (message := await link.receive()) is not None:",
    "    if isinstance(message, Publish):",
    "        link.take_fds(len(message.sockets)); link.post(Applied(message.table.epoch))",
    "    elif isinstance(message, AskStats): link.post(Stats(message.ask, 0, 0, {}))",
    "    elif isinstance(message, GiveAway):",
    "        moved = MovedConnection(MovedKind.IDLE, 1, MovedClient(''), 0.0)",
    "        link.post(Given(7, moved), [1])",
    "    elif isinstance(message, Released): link.post(Notice(f'{message.number} {message.is_taken}'))",
)


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ("link.post(Taken(message.number, 'no room'))", "7 False"),
        ("link.post(Taken(message.number + 1)); link.post(Taken(message.number))", "7 True"),
        ("import os; os._exit(1)", "7 True"),  # it may have moved bytes: nobody else may have it
    ],
)
@trio_test(timeout_s=20)
async def test_the_old_worker_hears_what_has_become_of_a_connection(answers: str, says: str) -> None:
    command = pretender(*GIVER, "    elif isinstance(message, Take):", f"        {answers}")
    async with house(command) as made:
        Moving(made.workers, made.events.append)
        made.bind(2)
        made.publish()
        made.workers.resize(2)
        await made.wait_serving(2)
        fds = len(os.listdir("/proc/self/fd"))
        retire(made)
        await until(lambda: texts(made) == [says])
        assert made.workers.moves_under_way() == 0
        if "exit" not in answers:
            assert len(os.listdir("/proc/self/fd")) == fds


@trio_test(timeout_s=20)
async def test_a_connection_stays_if_there_is_no_other_worker() -> None:
    async with house(pretender(*GIVER)) as made:
        Moving(made.workers, made.events.append)
        made.publish()
        made.workers.resize(1)
        await made.wait_serving(1)
        retire(made)
        await until(lambda: texts(made) == ["7 False"])


@trio_test(timeout_s=30)
async def test_hundreds_of_sessions_move_within_seconds() -> None:
    async with house() as made:
        made.mode = "tcp"
        Moving(made.workers, made.events.append)
        one = await made.origin(b"one")
        await made.serve(one.view)
        streams = [await made.connect() for _ in range(400)]
        await until(lambda: made.total(one.view.cell, Counter.TCP) == 400)
        made.bind(2)
        made.publish(one.view)
        made.workers.resize(2)
        await made.wait_serving(2)
        began = time.monotonic()
        retire(made)
        await made.wait_saw(WorkerGaveAway)
        assert time.monotonic() - began < 8.0  # alone it is less than one
        assert made.total(one.view.cell, Counter.TCP) == 400
        await streams[250].send_all(REQUEST)
        assert await answer(streams[250]) == b"one"
