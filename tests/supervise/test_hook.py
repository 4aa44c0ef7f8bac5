"""One command beside the backends."""

import os
import signal
import sys
from pathlib import Path

import pytest
import trio
from support.trio_test import trio_test

from lbproxy.model import Generation
from lbproxy.settings import PoolSettings
from lbproxy.supervise.hook import Ended, Hook, run_hook
from lbproxy.supervise.resources import Resources
from lbproxy.telemetry.events import BackendOutput, Event, Notice


@pytest.fixture
def said() -> list[Event]:
    return []


async def run(said: list[Event], place: Path, *command: str, limit_s: float = 20.0, **more: object) -> Ended:
    generation = Generation(7, PoolSettings("web", command), str(place), (("A", "1"),))
    resources = Resources.make(said.append, (20000, 29999), 100)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(resources.children.run)
        try:
            return await run_hook(Hook("before", command, generation, limit_s, **more), resources)  # type: ignore[arg-type]
        finally:
            nursery.cancel_scope.cancel()
            resources.close()


@trio_test
async def test_it_has_the_generations_directory_and_environment(said: list[Event], tmp_path: Path) -> None:
    code = "import os; print(os.getcwd(), os.environ['A'], os.environ['B'], os.environ['LBPROXY_GENERATION'])"
    ended = await run(said, tmp_path, sys.executable, "-c", code, env={"B": "2"})
    assert ended == Ended(None, (f"{tmp_path} 1 2 7",))
    assert said == [BackendOutput("web.before", f"{tmp_path} 1 2 7")]


@trio_test
async def test_its_end_is_told_in_words(said: list[Event], tmp_path: Path) -> None:
    assert (await run(said, tmp_path, "sh", "-c", "exit 3")).why == "exit code 3"
    assert (await run(said, tmp_path, "sh", "-c", "kill -9 $$")).why == "signal SIGKILL"
    assert (
        await run(said, tmp_path, "nonesuch")
    ).why == f"command not found: 'nonesuch' (PATH is {os.environ['PATH']})"
    assert (await run(said, tmp_path / "gone", "true")).why == f"directory is gone: {tmp_path}/gone"
    ended = await run(said, tmp_path, "sh", "-c", "seq 100; sleep 50", limit_s=0.3)
    assert ended.why == "not over within 0.3s"
    assert ended.output == tuple(map(str, range(81, 101)))


@trio_test
async def test_a_daemon_that_was_let_go_and_holds_the_output_does_not_hold_the_hook_up(
    said: list[Event], tmp_path: Path
) -> None:
    with trio.fail_after(10):
        ended = await run(said, tmp_path, "sh", "-c", "env -u LBPROXY_RUN setsid sleep 60 & echo $!")
    os.kill(int(ended.output[0]), signal.SIGKILL)
    assert ended.why is None


@trio_test
async def test_the_log_takes_as_many_lines_a_second_as_of_a_backend(said: list[Event], tmp_path: Path) -> None:
    ended = await run(said, tmp_path, "seq", "100000")
    assert ended.output == tuple(map(str, range(99981, 100001)))
    lines = [event for event in said if isinstance(event, BackendOutput)]
    left_out = sum(int(event.text.split()[2]) for event in said if isinstance(event, Notice))
    assert len(lines) < 1000
    assert len(lines) + left_out == 100000


@trio_test
async def test_the_report_is_a_file_without_a_name(said: list[Event], tmp_path: Path) -> None:
    ended = await run(said, tmp_path, "sh", "-c", 'cat "$LBPROXY_REPORT"', report=b'{"a": 1}\n')
    assert ended == Ended(None, ('{"a": 1}',))
    ended = await run(said, tmp_path, "sh", "-c", 'echo "<$LBPROXY_REPORT>"')
    assert ended.output == ("<>",)
