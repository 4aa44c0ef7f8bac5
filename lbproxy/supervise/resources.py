"""The resources that all backends of one control share."""

from collections.abc import Callable
from dataclasses import dataclass, field

from lbproxy.privileges import Identity
from lbproxy.supervise.endpoint import Endpoints
from lbproxy.supervise.guard_handle import Guard
from lbproxy.supervise.handed_on import HandedResources
from lbproxy.supervise.output import OutputBook
from lbproxy.supervise.ports import Ports
from lbproxy.supervise.reap import Children
from lbproxy.telemetry.events import Event


@dataclass(frozen=True, slots=True)
class Resources:
    """Control's nursery runs `guard.run()` and `children.run()`. Control calls `close()` when all backends are gone.

    `children.run()` returns at once where no orphan can come to control.
    """

    emit: Callable[[Event], None]
    ports: Ports
    endpoints: Endpoints
    guard: Guard
    children: Children
    outputs: OutputBook
    probes: dict[tuple[str, bool], int] = field(default_factory=dict)  # their number by pool, and whether they passed

    @classmethod
    def make(
        cls, emit: Callable[[Event], None], ports: tuple[int, int], backend_lines: int, worker: Identity | None = None
    ) -> "Resources":
        """`ports`: the first and the last of the range. `backend_lines`: see OutputBook. `worker`: see Endpoints."""
        children = Children()
        port_range = Ports(*ports)
        guard = Guard(children, emit)
        return cls(emit, port_range, Endpoints(port_range, worker), guard, children, OutputBook(backend_lines))

    def hand_on(self) -> HandedResources | None:
        """None while no guard runs."""
        guard = self.guard.hand_on()
        return None if guard is None else HandedResources(guard, *self.endpoints.hand_on())

    def take_over(self, handed: HandedResources) -> None:
        self.guard.take_over(handed.guard)
        self.endpoints.take_over(handed.sockets_directory, handed.next_socket_number)

    def count_probe(self, pool: str, passed: bool) -> None:
        self.probes[pool, passed] = self.probes.get((pool, passed), 0) + 1

    def close(self) -> None:
        """Remove the directory of the unix sockets."""
        self.endpoints.close()
