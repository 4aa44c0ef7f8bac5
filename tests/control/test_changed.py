"""A task that waits looks at its condition after each change."""

import trio
import trio.testing
from support.trio_test import trio_test

from lbproxy.control.changed import Changed


@trio_test
async def test_a_task_waits_until_its_condition_is_true():
    changed, facts = Changed(), [0]
    done = trio.Event()

    async def waits():
        await changed.wait(lambda: facts[0] == 2)
        done.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(waits)
        for number in (1, 2):
            await trio.testing.wait_all_tasks_blocked()
            assert not done.is_set()
            facts[0] = number
            changed.notify()
        await done.wait()
