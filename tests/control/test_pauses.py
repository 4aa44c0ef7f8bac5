"""What the table says of a paused pool."""

import pytest
from support.trio_test import trio_test

from control.fakes import World, pool_settings, settings_of
from lbproxy.control.pauses import pause, unpause
from lbproxy.control.plan import CannotDo, UnknownPool
from lbproxy.telemetry.events import PoolPaused, PoolUnpaused


@trio_test(clock="autojump", timeout_s=1000)
async def test_its_backends_rest_and_their_leases_go_on():
    async with World(settings_of(pool_settings(size=2))).running() as world:
        before = world.workers.tables[-1].pools[0]
        await pause(world.context, "web", max_wait_s=3.0, page=None)
        view = world.workers.tables[-1].pools[0]
        assert (view.backends, view.resting, view.maintenance) == ((), before.backends, None)
        assert view.limits.queue_timeout_s == 3.0
        await pause(world.context, "web", max_wait_s=None, page="soon")
        view = world.workers.tables[-1].pools[0]
        assert (view.maintenance, view.limits) == ("soon", before.limits)
        await unpause(world.context, "web")
        assert world.workers.tables[-1].pools[0] == before
        assert len(world.of(PoolPaused)) == 2
        assert len(world.of(PoolUnpaused)) == 1
        with pytest.raises(CannotDo, match="web is not paused"):
            await unpause(world.context, "web")
        with pytest.raises(UnknownPool):
            await pause(world.context, "nope", max_wait_s=None, page=None)
