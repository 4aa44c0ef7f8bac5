"""Worker processes as control sees them: told, believed, watched, replaced. Real processes, real time."""

import os
import signal
from pathlib import Path

import pytest
import trio
import trio.testing
from support.hiring import REQUEST, answer, house, is_alive, pretender, send, until
from support.trio_test import trio_test

from lbproxy.address import Address
from lbproxy.control.worker_process import COMMAND
from lbproxy.control.worker_watch import HUNG_AFTER_S
from lbproxy.link.grid import Counter
from lbproxy.model import BackendId, BackendView
from lbproxy.settings import DrainSettings
from lbproxy.telemetry.events import Notice, WorkerExited, WorkerHung, WorkerStarted


@trio_test
async def test_workers_serve_what_the_table_says() -> None:
    async with house() as made:
        one = await made.origin(b"one")
        two = await made.origin(b"two", slot=2)
        await made.serve(one.view, two.view, workers=2)
        stream = await made.connect()
        assert {await made.ask(stream) for _ in range(4)} == {b"one", b"two"}
        statuses = await made.workers.stats()
        assert [status.id for status in statuses] == [1, 2]
        assert all(status.state == "serving" and is_alive(status.pid) for status in statuses)
        assert sum(status.stats.connections for status in statuses) == 1
        await until(lambda: made.total(made.listeners[0].cell, Counter.CONNECTIONS) == 1)
        assert made.total(one.view.cell, Counter.REQUESTS) + made.total(two.view.cell, Counter.REQUESTS) == 4


@trio_test
async def test_what_a_worker_has_counted_outlives_it() -> None:
    async with house() as made:
        one = await made.origin(b"one")
        await made.serve(one.view)
        for _ in range(2):
            stream = await made.connect()
            for _ in range(3):
                await made.ask(stream)
            (status,) = await made.workers.stats()
            os.kill(status.pid, signal.SIGKILL)
            await made.wait_saw(WorkerExited, len(made.saw(WorkerExited)) + 1)
            await until(lambda: all(worker.applied for worker in made.workers._live.values()) and made.workers._live)
        assert made.tallies.requests == {("web", "GET", "200"): 6}
        assert made.tallies.express["served"] == 6
        assert made.tallies.response_bytes["web"] == 18


@trio_test
async def test_a_table_is_applied_when_every_worker_says_so() -> None:
    async with house() as made:
        one, two = await made.origin(b"one"), await made.origin(b"two", slot=2)
        await made.serve(one.view, workers=2)
        streams = [await made.connect() for _ in range(8)]
        assert {await made.ask(stream) for stream in streams} == {b"one"}
        await made.workers.wait_applied(made.publish(two.view))
        assert {await made.ask(stream) for stream in streams} == {b"two"}


@trio_test
async def test_a_backend_is_drained_when_its_last_answer_is_out() -> None:
    async with house() as made:
        one, two = await made.origin(b"one"), await made.origin(b"two", slot=2)
        await made.serve(one.view, workers=2)
        one.hold()
        stream = await made.connect()
        await stream.send_all(REQUEST)
        await until(lambda: one.asked == 1)
        epoch = made.publish(two.view)
        await made.workers.wait_applied(epoch)
        with trio.move_on_after(0.1) as patience:
            await made.workers.wait_drained(one.view.id, epoch)
        assert patience.cancelled_caught
        one.free.set()
        assert await answer(stream) == b"one"
        await made.workers.wait_drained(one.view.id, epoch)


@trio_test
async def test_an_earlier_drain_does_not_count_for_a_later_one() -> None:
    async with house() as made:
        one = await made.origin()
        await made.serve(one.view)
        first = made.publish()
        await made.workers.wait_drained(one.view.id, first)
        made.publish(one.view)
        one.hold()
        stream = await made.connect()
        await stream.send_all(REQUEST)
        await until(lambda: one.asked == 1)
        second = made.publish()
        await made.workers.wait_applied(second)
        with trio.move_on_after(0.1) as patience:
            await made.workers.wait_drained(one.view.id, second)
        assert patience.cancelled_caught
        one.free.set()
        await made.workers.wait_drained(one.view.id, second)


@trio_test
async def test_a_lease_that_outlasts_its_grace_is_cut_and_counted() -> None:
    async with house() as made:
        made.drain = DrainSettings(request_s=0.2)
        one = await made.origin()
        await made.serve(one.view)
        one.hold()
        stream = await made.connect()
        await stream.send_all(REQUEST)
        await until(lambda: one.asked == 1)
        await made.workers.wait_drained(one.view.id, made.publish())
        assert made.total(one.view.cell, Counter.CUT) == 1
        assert made.total(one.view.cell, Counter.LEASES) == 0


@trio_test
async def test_connections_queued_at_a_kill_are_answered_by_the_successor() -> None:
    async with house() as made:
        one = await made.origin()
        await made.serve(one.view)
        held = await made.connect()
        assert await made.ask(held) == b"one"
        (pid,) = await made.wait_serving(1)
        send(pid, signal.SIGSTOP)
        streams = [await made.connect() for _ in range(40)]
        for stream in streams:
            await stream.send_all(REQUEST)
        send(pid, signal.SIGKILL)
        assert [await answer(stream) for stream in streams] == [b"one"] * 40
        assert await made.ask(held) == b""  # what was on it is lost
        (exited,) = made.saw(WorkerExited)
        assert isinstance(exited, WorkerExited)
        assert (exited.worker, exited.pid, exited.how) == (1, pid, "signal SIGKILL")


@trio_test
async def test_all_serve_again_when_the_successor_of_a_dead_worker_does() -> None:
    async with house() as made:
        await made.serve((await made.origin()).view, workers=2)
        await made.workers.wait_all_serving()
        (pid, _) = await made.wait_serving(2)
        send(pid, signal.SIGKILL)
        await until(lambda: made.saw(WorkerExited))
        with trio.move_on_after(0) as patience:
            await made.workers.wait_all_serving()
        assert patience.cancelled_caught
        await made.workers.wait_all_serving()
        assert pid not in await made.wait_serving(2)


@trio_test
async def test_counts_go_on_where_a_dead_worker_left_them() -> None:
    async with house() as made:
        one = await made.origin()
        await made.serve(one.view)
        assert await made.ask() == b"one"
        one.hold()
        stream = await made.connect()
        await stream.send_all(REQUEST)
        await until(lambda: made.total(one.view.cell, Counter.LEASES) == 1)
        pids = await made.wait_serving(1)
        send(pids[0], signal.SIGKILL)
        await made.wait_serving(1, without=pids)
        assert made.total(one.view.cell, Counter.LEASES) == 0
        assert made.total(made.listeners[0].cell, Counter.CONNECTIONS) == 0
        one.free.set()
        assert await made.ask() == b"one"
        assert made.total(one.view.cell, Counter.REQUESTS) == 2
        assert made.total(made.listeners[0].cell, Counter.ACCEPTED) == 3


@trio_test
async def test_a_worker_that_dies_holds_up_neither_a_table_nor_a_drain() -> None:
    async with house() as made:
        one = await made.origin()
        await made.serve(one.view, workers=2)
        pids = await made.wait_serving(2)
        send(pids[0], signal.SIGSTOP)
        epoch = made.publish()
        send(pids[0], signal.SIGKILL)
        await made.workers.wait_applied(epoch)
        await made.workers.wait_drained(one.view.id, epoch)
        assert not made.saw(WorkerHung)


@pytest.mark.parametrize("publish", [True, False], ids=["with a table to apply", "with nothing to do"])
@trio_test
async def test_a_hung_worker_is_killed_and_replaced(publish: bool) -> None:
    async with house() as made:
        one = await made.origin()
        await made.serve(one.view)
        pids = await made.wait_serving(1)
        send(pids[0], signal.SIGSTOP)
        began = trio.current_time()
        epoch = made.publish(one.view) if publish else made.epoch
        stream = await made.connect()
        assert await made.ask(stream) == b"one"
        assert HUNG_AFTER_S - 1 < trio.current_time() - began < HUNG_AFTER_S + 10
        assert len(made.saw(WorkerHung)) == 1
        await made.workers.wait_applied(epoch)


@trio_test
async def test_a_worker_is_told_of_a_backend_that_refuses_connections() -> None:
    async with house() as made:
        one = await made.origin()
        gone = BackendView(BackendId("web", 2, 1), Address("127.0.0.1", 9), made.book.take())
        await made.serve(one.view, gone)
        assert {await made.ask() for _ in range(4)} == {b"one"}
        assert {id for id, why in made.refused} == {gone.id}


# Coming and going


@trio_test
async def test_more_workers_share_the_clients_of_the_first() -> None:
    async with house() as made:
        one = await made.origin()
        await made.serve(one.view)
        made.bind(2)
        for _ in range(4):
            assert await made.ask() == b"one"  # nobody waits for the second one
        made.publish(one.view)
        made.workers.resize(2)
        await made.wait_serving(2)
        streams = [await made.connect() for _ in range(32)]
        assert {await made.ask(stream) for stream in streams} == {b"one"}
        assert min(status.stats.connections for status in await made.workers.stats()) > 0


@trio_test
async def test_a_stop_lets_work_finish_within_its_grace() -> None:
    async with house() as made:
        one = await made.origin()
        await made.serve(one.view)
        pids = await made.wait_serving(1)
        idle, busy = await made.connect(), await made.connect()
        assert await made.ask(idle) == b"one"
        one.hold()
        await busy.send_all(REQUEST)
        await until(lambda: one.asked == 2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made.workers.stop, 10.0)
            assert await idle.receive_some() == b""
            with pytest.raises(OSError):
                await made.connect()
            one.free.set()
            assert await answer(busy) == b"one"
        assert not is_alive(pids[0])
        assert not made.saw(WorkerExited)
        assert await made.workers.stats() == []


@trio_test
async def test_who_has_asked_before_a_stop_is_answered() -> None:
    async with house() as made:
        one = await made.origin()
        await made.serve(one.view)
        pids = await made.wait_serving(1)
        kept = await made.connect()
        assert await made.ask(kept) == b"one"
        send(pids[0], signal.SIGSTOP)
        streams = [kept, *[await made.connect() for _ in range(10)]]
        for stream in streams:
            await stream.send_all(REQUEST)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made.workers.stop, 10.0)
            await trio.testing.wait_all_tasks_blocked(0.01)
            send(pids[0], signal.SIGCONT)
            assert [await answer(stream) for stream in streams] == [b"one"] * 11


@pytest.mark.parametrize("stopped", [False, True], ids=["busy", "hung"])
@trio_test
async def test_a_stop_is_over_when_its_grace_is(stopped: bool) -> None:
    async with house() as made:
        one = await made.origin()
        await made.serve(one.view, workers=2)
        pids = await made.wait_serving(2)
        one.hold()
        stream = await made.connect()
        await stream.send_all(REQUEST)
        await until(lambda: one.asked == 1)
        if stopped:
            send(pids[0], signal.SIGSTOP)
        with trio.fail_after(3):
            await made.workers.stop(0.3)
        assert not any(map(is_alive, pids))
        assert not made.saw(WorkerHung)


@trio_test
async def test_a_worker_that_is_just_being_started_is_stopped_too() -> None:
    async with house(pretender("await trio.sleep_forever()")) as made:
        made.publish()
        made.workers.resize(3)
        await trio.lowlevel.checkpoint()
        with trio.fail_after(5):
            await made.workers.stop(0.0)
            await made.workers.run()  # returns at once: there is nothing left
        for event in made.saw(WorkerStarted):
            assert isinstance(event, WorkerStarted)
            await until(lambda pid=event.pid: not is_alive(pid))


@trio_test
async def test_a_worker_that_has_just_been_started_gets_its_sockets_before_they_are_closed() -> None:
    for _ in range(3):  # which of two tasks runs first is chance
        async with house() as made:
            one = await made.origin()
            is_there = trio.Event()
            made.workers.on_process = lambda pid, alive, event=is_there: event.set()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(made.serve, one.view)
                await is_there.wait()
                with trio.fail_after(10):
                    await made.workers.stop(30.0)
                nursery.cancel_scope.cancel()


@trio_test
async def test_a_worker_ends_with_its_link() -> None:
    async with house() as made:
        await made.serve()
        pids = await made.wait_serving(1)
        child = os.pidfd_open(pids[0])
        made.workers.kill()
        await trio.lowlevel.wait_readable(child)
        os.close(child)


@trio_test
async def test_access_logs_are_opened_anew(tmp_path: Path) -> None:
    async with house() as made:
        made.access_path = str(tmp_path / "access.log")
        one = await made.origin()
        await made.serve(one.view)
        await made.ask()
        (tmp_path / "access.log").rename(tmp_path / "old.log")
        made.workers.reopen()
        await made.workers.stats()  # the answer comes behind the new file
        await made.ask()
        await until(lambda: (tmp_path / "access.log").stat().st_size > 0)


@trio_test
async def test_an_access_log_that_cannot_be_opened_is_told_and_costs_nobody_an_answer(tmp_path: Path) -> None:
    async with house() as made:
        path = tmp_path / "none" / "access.log"
        made.access_path = str(path)
        one = await made.origin()
        await made.serve(one.view)
        assert await made.ask() == b"one"
        assert made.events.count(Notice(f"cannot open the access log {path}: No such file or directory")) == 1
        path.parent.mkdir()
        made.workers.reopen()
        await until(path.exists)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
@trio_test
async def test_a_worker_of_another_user_has_no_rights_of_ours(tmp_path: Path) -> None:
    """It becomes user 65534 of group 65533, writes into a file that only root may open, and serves."""
    tmp_path.chmod(0o700)
    async with house([*COMMAND, "65534:65533"]) as made:
        known: list[tuple[int, bool]] = []
        made.workers.on_process = lambda pid, lives: known.append((pid, lives))
        made.access_path = str(tmp_path / "access.log")
        one = await made.origin()
        await made.serve(one.view)
        assert await made.ask() == b"one"
        await until(lambda: (tmp_path / "access.log").stat().st_size > 0)
        (pid,) = await made.wait_serving(1)
        assert known == [(pid, True)]
        facts = dict(
            line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
        )
        assert (facts["Uid"], facts["Gid"]) == ("65534\t65534\t65534\t65534", "65533\t65533\t65533\t65533")
        assert facts["Groups"].strip() == ""
        assert {int(facts[f"Cap{kind}"], 16) for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {0}
        assert facts["NoNewPrivs"] == "1"
        assert os.stat(f"/proc/{pid}/environ").st_uid == 0, "its memory belongs to root: it is not dumpable"
        made.workers.kill()
        await until(lambda: known[-1] == (pid, False))
