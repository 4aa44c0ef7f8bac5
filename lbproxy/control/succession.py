"""What control hands on to the program that takes its place, and what it takes over from the one before.

Knows all parts of control, and which of them can be handed on only when they are settled. upgrader.py knows when.
"""

from dataclasses import dataclass

from lbproxy import __version__
from lbproxy.control import old_workers
from lbproxy.control.context import ControlContext
from lbproxy.control.document import counter_names
from lbproxy.control.drains import Drains
from lbproxy.control.handed_counts import hand_on_counts, take_over_counts
from lbproxy.control.handed_on import VERSION, Document, HandedEvents, HandedGrid, HandedUpgrade
from lbproxy.control.memory import Memory
from lbproxy.control.parts import Parts
from lbproxy.supervise.handed_on import handed_time
from lbproxy.supervise.resources import Resources
from lbproxy.telemetry.events import Notice
from lbproxy.telemetry.text import event_from_json, event_json

HANDED_EVENTS = 1000


@dataclass(frozen=True, slots=True)
class Succession:
    parts: Parts
    context: ControlContext
    resources: Resources
    memory: Memory
    drains: Drains
    started: float  # on Trio's clock

    def unsettled(self) -> str | None:
        """Why nothing can be handed on in this moment; None: it can."""
        if not self.context.fleet.is_settled:
            return "a backend is being started or stopped"
        if not old_workers.can_be_handed_on(self.context.workers):
            return "a worker is being started, or ends"
        if self.resources.children.is_spawning or self.resources.guard.pid is None:
            return "a process is being started"
        return None

    def hand_on(self, upgrade: HandedUpgrade) -> Document:
        """What is true now. Nothing of it may be unsettled."""
        parts, context, resources = self.parts, self.context, self.resources.hand_on()
        assert resources is not None
        assert context.fleet.table is not None
        copy, grid = parts.start.copy, parts.grid
        return Document(
            *(VERSION, __version__, upgrade, context.settings, context.fleet.table),
            grid=HandedGrid(grid.fd, grid.rows, grid.cells, counter_names(), parts.cells.free),
            sockets=parts.sockets.hand_on(),
            workers=old_workers.hand_on(context.workers),
            worker_count=context.worker_count,
            fleet=context.fleet.hand_on(self.drains.of),
            resources=resources,
            control_socket=parts.control_socket.hand_on(),
            admin_socket=parts.admin_socket.hand_on(),
            copy=copy.hand_on() if copy is not None else None,
            started_at=handed_time(self.started),
            loaded_at=context.loaded_at,
            ignores_hangup=parts.ignores_hangup,
            has_terminal=parts.has_terminal,
            ids=context.ids.last(),
            history=list(self.memory.history.records),
            generations=self.memory.hand_on_generations(),
            measured=hand_on_counts(context.measured),
            events=self._events(),
        )

    def _events(self) -> HandedEvents:
        ring = self.parts.ring
        newest = ring.after(ring.last(HANDED_EVENTS))
        events = [[one.at, event_json(one.event, one.at)] for one in newest]
        return HandedEvents(ring.first_id, ring.newest_id, events)

    def take_over(self, document: Document) -> None:
        """Go on where the program before stood, when the fleet and the drains run and the workers do not yet. What
        Parts and Resources are made of is taken over before."""
        context = self.context
        context.loaded_at = document.loaded_at
        self.memory.take_over(document.history, document.generations, document.ids)
        take_over_counts(context.measured, document.measured)
        handed = document.events
        if handed.first_id:
            known = [(float(at), event_from_json(values)) for at, values in handed.events]
            # What this version does not know stays in its place, so that the numbers stay right.
            events = [(at, event or Notice("an event of another version")) for at, event in known]
            self.parts.ring.restore(handed.first_id, events, handed.newest_id)
        old_workers.take_over(context.workers, document.workers, self.resources.children)
        for pool, member, drain in context.fleet.take_over(document.fleet):
            self.drains.take_over(pool, member, drain)
        context.fleet.publish()
