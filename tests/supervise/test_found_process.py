"""A child that this process has not spawned through subprocess: its end and its exit code."""

import os
import signal

import trio
from support.trio_test import trio_test

from lbproxy.supervise.found_process import FoundProcess


def sleeper(code: int | None = None) -> int:
    words = ["/bin/sleep", "60"] if code is None else ["/bin/sh", "-c", f"exit {code}"]
    return os.posix_spawn(words[0], words, os.environ)


@trio_test
async def test_its_exit_code_is_read_when_it_ends():
    process = FoundProcess(sleeper(3))
    await process.wait_dead()
    assert (process.returncode, process.poll()) == (3, 3)
    await process.wait_dead()
    assert "ended with 3" in repr(process)


@trio_test
async def test_it_can_be_killed_and_waited_for():
    process = FoundProcess(sleeper())
    assert process.poll() is None
    assert "running" in repr(process)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(process.wait_dead)
        process.kill()
    assert process.wait() == -signal.SIGKILL
    process.kill()  # nobody else may have the pid


def test_one_that_somebody_else_has_reaped_counts_as_killed():
    pid = sleeper(0)
    os.waitpid(pid, 0)
    process = FoundProcess(pid)
    assert process.poll() == -signal.SIGKILL
    trio.run(process.wait_dead)
