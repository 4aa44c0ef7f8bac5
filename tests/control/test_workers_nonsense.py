"""Workers that have lost their minds, or never had one: control believes none of it and starts others."""

import pytest
import trio
from support.hiring import house, pretender, until
from support.trio_test import trio_test

from lbproxy.control.workers import RESPAWN_PAUSE_S
from lbproxy.link.messages import Stats
from lbproxy.telemetry.events import Notice, WorkerExited, WorkerStarted

DEAF = ("await trio.sleep_forever()",)  # says nothing, ever
TALKS = ("await link.receive()", "await link.receive()")  # the welcome and a table; then what a test adds


@pytest.mark.parametrize(
    "nonsense",
    [
        "link.post(Applied(9))",
        "link.post(Stop(1.0))",
        "link.post(Unreachable('nobody', ''))",
        "link.post(Stats(1, 0, 0, {}, increase=Increase((Exchanges('web', 'GET', 200, (-1,) * 14, 0.0, 0, 0),))))",
        "link.post(Unreachable('web.one@two', ''))",
        "await link._sock.send(b'GET / HTTP/1.1' * 99)",
    ],
)
@trio_test
async def test_a_worker_that_talks_nonsense_is_replaced(nonsense: str) -> None:
    async with house(pretender(*TALKS, nonsense, *DEAF)) as made:
        made.publish()
        made.workers.resize(1)
        exits = await made.wait_saw(WorkerExited)
        assert isinstance(exits[0], WorkerExited)
        assert exits[0].how == "signal SIGKILL"
        assert any("worker 1 talks nonsense" in notice.text for notice in made.saw(Notice))  # type: ignore[attr-defined]
        await made.wait_saw(WorkerStarted, 2)


@trio_test
async def test_a_worker_that_dies_at_once_is_started_again_but_not_in_a_hurry() -> None:
    async with house(("/bin/false",)) as made:
        made.workers.resize(1)
        await trio.sleep(3.5 * RESPAWN_PAUSE_S)
        assert 2 <= len(made.saw(WorkerStarted)) <= 4


@trio_test
async def test_a_worker_that_cannot_be_started_is_said_so_and_tried_again() -> None:
    async with house(("/no/such/python",)) as made:
        made.workers.resize(1)
        notices = await made.wait_saw(Notice, 2)
        assert isinstance(notices[0], Notice)
        assert notices[0].text == "worker 1 cannot be started: No such file or directory"
        assert await made.workers.stats() == []


@pytest.mark.parametrize(
    ("life", "how"),
    [("import os; os.kill(os.getpid(), 40)", "signal SIG40"), ("import os; os._exit(3)", "exit code 3")],
)
@trio_test
async def test_an_exit_is_told_as_what_it_was(life: str, how: str) -> None:
    async with house(pretender(life)) as made:
        made.workers.resize(1)
        (exited,) = await made.wait_saw(WorkerExited)
        assert isinstance(exited, WorkerExited)
        assert exited.how == how


@trio_test
async def test_a_worker_that_lets_go_of_its_link_is_lost() -> None:
    async with house(pretender("link.close()", *DEAF)) as made:
        made.workers.resize(1)
        await made.wait_saw(WorkerStarted, 2)


@trio_test
async def test_one_that_does_not_answer_is_reported_as_it_was_last() -> None:
    async with house(pretender(*TALKS, "link.post(Applied(1))", "link.post(Stats(1, 7, 8, {}, 0.5))", *DEAF)) as made:
        made.publish()
        made.workers.resize(1)
        await until(lambda: any(worker.applied for worker in made.workers._live.values()))
        (status,) = await made.workers.stats()
        assert (status.state, status.stats) == ("serving", Stats(1, 7, 8, {}, 0.5))
