"""A member of a `targets` pool: a fixed address, probed and balanced, never started and never stopped."""

import trio

from lbproxy.model import State
from lbproxy.policy.lifecycle import LifecycleEvent, spawned
from lbproxy.supervise.runner import NotReady, Runner
from lbproxy.telemetry.events import BackendReady, BackendUnhealthy


class AddressRunner(Runner):
    """Slot 1 is the first of `targets`."""

    async def run(self) -> None:
        self._began = True
        address = self.generation.settings.targets[self.id.slot - 1]
        try:
            if self._stop.is_set():
                return
            self._set(spawned(self.backend, address, None))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch)
                nursery.start_soon(self._time_start)
                await self._stop.wait()
                nursery.cancel_scope.cancel()
        finally:
            self._resources.outputs.retire(self.id)
            self._ended.set()
            self._tell()

    async def _watch(self) -> None:
        address = self.backend.address
        assert address is not None
        began = trio.current_time()
        while self.backend.state is State.STARTING:
            answer = await self._ask(address)
            self._judge(answer)
            if answer.passed:
                self._emit(BackendReady(self.id.pool, str(self.id), round(trio.current_time() - began, 3), self.reload))
                self._become_ready()
            elif not self._health.healthy:
                self._emit(BackendUnhealthy(self.id.pool, str(self.id), answer.detail))
                self._become(LifecycleEvent.FELL)
            else:
                await self._wait_turn()
        await self._keep_probing(address)

    async def _time_start(self) -> None:
        """Tell those who wait when it is not ready in time; the probes go on."""
        limit_s = self.settings.health.start_timeout_s
        await trio.sleep(limit_s)
        if self._ready_since is None and self.backend.state is not State.READY:
            self._failure = NotReady(f"not ready within {limit_s:g}s: {self._said}")
            self._tell()
