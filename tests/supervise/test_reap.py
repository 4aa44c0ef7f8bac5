import os
import subprocess
import sys

import trio
import trio.testing
from support.children import PYTHON, is_known
from support.trio_test import trio_test

from lbproxy.supervise.reap import Children, adopts_orphans

# A subreaper, like PID 1 in its container. A child of it leaves orphans and exits.
SUBREAPER = """
import ctypes, os, subprocess, sys, trio
assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0
from lbproxy.supervise.reap import Children, adopts_orphans
async def main():
    assert adopts_orphans()
    children = Children()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(children.run)
        await trio.testing.wait_all_tasks_blocked()
        own = []
        for _ in range(20):
            child = await children.spawn(["sh", "-c", "(exec sh -c 'exit 0') & (exec sleep 0.2) & echo $!; exit 7"],
                                         stdout=subprocess.PIPE)
            own.append(child)
        orphans = [int(child.stdout.readline()) for child in own]
        codes = [await trio.to_thread.run_sync(child.wait) for child in own]
        while any(os.path.exists(f"/proc/{pid}") for pid in orphans):
            await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    sys.exit(0 if set(codes) == {7} else f"codes were stolen: {codes}")
import trio.testing
trio.run(main)
"""


def test_orphans_are_reaped_and_our_own_children_are_not_stolen():
    done = subprocess.run([sys.executable, "-c", SUBREAPER], check=False, timeout=30, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@trio_test
async def test_where_no_orphan_comes_there_is_nothing_to_do():
    assert os.getpid() != 1
    assert not adopts_orphans()
    await Children().run()


@trio_test
async def test_a_child_in_the_book_is_not_reaped_until_it_is_forgotten():
    children = Children()
    child = await children.spawn([*PYTHON, ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    await children.reap_orphans()
    assert is_known(child.pid)
    children.forget(child.pid)
    await children.reap_orphans()
    assert not is_known(child.pid)
    child.returncode = 0


@trio_test
async def test_nothing_is_reaped_while_a_spawn_is_under_way():
    children = Children()
    children._spawning = 1
    with trio.move_on_after(0.05) as limit:
        await children.reap_orphans()
    assert limit.cancelled_caught


@trio_test
async def test_a_child_that_another_owner_waits_for_is_left_to_it():
    children = Children()
    others = subprocess.Popen([*PYTHON, "raise SystemExit(7)"])
    os.waitid(os.P_PID, others.pid, os.WEXITED | os.WNOWAIT)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(children.reap_orphans)
        await trio.testing.wait_all_tasks_blocked()
        assert others.wait() == 7


@trio_test
async def test_a_cancelled_spawn_still_is_in_the_book():
    children = Children()
    with trio.CancelScope() as scope:
        scope.cancel()
        child = await children.spawn([*PYTHON, ""])
        assert child.pid in children._own
    assert child.wait() == 0
