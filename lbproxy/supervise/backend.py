"""One backend's life, as one task (signatures first; the insides are being written)."""

from collections.abc import Callable
from dataclasses import dataclass

from lbproxy.errors import LbproxyError
from lbproxy.model import Backend, BackendId, Generation
from lbproxy.settings import PoolSettings
from lbproxy.supervise.guard_handle import Guard
from lbproxy.supervise.output import OutputBook, OutputRing
from lbproxy.supervise.ports import Ports
from lbproxy.supervise.reap import Children
from lbproxy.telemetry.events import Event


class NotReady(LbproxyError):
    """A backend did not become ready, or did not stay so. `output`: its last lines."""

    def __init__(self, why: str, output: tuple[str, ...] = ()) -> None:
        super().__init__(why)
        self.why = why
        self.output = output


@dataclass(frozen=True, slots=True)
class Services:
    """What the backends of one control share. Made with `Services.make`; `close()` removes the socket directory.

    Control's nursery runs `guard.run()` and `children.run()` (which returns at once unless we are PID 1).
    """

    emit: Callable[[Event], None]
    ports: Ports
    guard: Guard
    children: Children
    outputs: OutputBook

    @classmethod
    def make(cls, emit: Callable[[Event], None], ports: tuple[int, int]) -> "Services":
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class Supervised:
    """`trial` (default: `reload is not None`): until `wait_proved` has returned, a death is answered by one respawn
    with a new port and then by FAILED + NotReady. `trial=False` with a reload's id (rollback restarts): normal crash
    policy, but its events carry the id."""

    def __init__(
        self,
        id: BackendId,
        generation: Generation,
        services: Services,
        *,
        reload: str | None = None,
        trial: bool | None = None,
    ) -> None:
        self.id = id
        self.generation = generation
        self.reload = reload
        self.backend: Backend
        self.output: OutputRing
        self.on_change: Callable[[Supervised], None]
        # called when a probe passes after `refused()` and the state did not change: publish a new table, so that
        # the workers that skip it use it again
        self.on_reachable: Callable[[Supervised], None]

    async def run(self) -> None:
        """Until stopped for good (a FAILED one waits for `stop`; one that dies while DRAINING is done)."""

    async def wait_ready(self) -> None: ...

    async def wait_proved(self, min_ready_s: float) -> None: ...

    def refused(self) -> None: ...

    def drain(self) -> None:
        """READY | UNHEALTHY -> DRAINING; IllegalTransition otherwise."""

    def take_back(self) -> None:
        """DRAINING -> READY | UNHEALTHY; IllegalTransition otherwise (it may have died: then it is STOPPING)."""

    async def stop(self) -> str:
        """Any number of callers, any state; also when `run` never ran or has returned."""
        return ""

    def kill(self) -> None: ...

    def update(self, settings: PoolSettings) -> None: ...


class FixedTarget(Supervised):
    """A member of a `targets` pool: its address is `generation.settings.targets[id.slot - 1]`."""
