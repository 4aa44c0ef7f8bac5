"""The runner of a fixed address in a `targets` pool: probed and balanced, never started and never stopped."""

import trio

from lbproxy.address import Address
from lbproxy.model import BackendSpec, State
from lbproxy.policy.lifecycle import LifecycleEvent, spawned
from lbproxy.supervise.resources import Resources
from lbproxy.supervise.runner import NotReady, Runner
from lbproxy.telemetry.events import BackendReady, BackendUnhealthy


class AddressRunner(Runner):
    """Slot 1 is the first of `targets`."""

    def __init__(
        self, spec: BackendSpec, resources: Resources, *, reload: str | None = None, trial: bool | None = None
    ) -> None:
        super().__init__(spec, resources, reload=reload, trial=trial)
        self._address = spec.generation.settings.targets[spec.slot - 1]

    async def run(self) -> None:
        self._began = True
        try:
            if self._stop.is_set():
                return
            if self.backend.address is None:  # else it was taken over
                self._set(spawned(self.backend, self._address, None))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch, self._address)
                nursery.start_soon(self._time_start)
                await self._stop.wait()
                nursery.cancel_scope.cancel()
        finally:
            self._finish()

    async def _watch(self, address: Address) -> None:
        began = trio.current_time()
        while self.backend.state is State.STARTING:
            result = await self._probe(address)
            self._count_probe(result)
            if result.passed:
                self._emit(BackendReady(self.id.pool, str(self.id), round(trio.current_time() - began, 3), self.reload))
                self._become_ready()
            elif not self._health.healthy:
                self._emit(BackendUnhealthy(self.id.pool, str(self.id), result.detail))
                self._become(LifecycleEvent.FELL)
            else:
                await self._wait_probe_due()
        await self._keep_probing(address)

    async def _time_start(self) -> None:
        """Fail the attempt when the address is not ready in time. The probes go on."""
        limit_s = self.settings.health.start_timeout_s
        await trio.sleep(limit_s)
        if self._ready_since is None and self.backend.state is not State.READY:
            self._failure = NotReady(f"not ready within {limit_s:g}s: {self._last_probe}")
            self._wake()
