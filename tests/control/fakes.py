"""Hand-written stand-ins: backends without processes, workers without processes, in virtual time."""

from dataclasses import dataclass, field, replace

import trio

from lbproxy.control.reload import Broken, Seat
from lbproxy.model import Backend, BackendId, Generation, State
from lbproxy.settings import PoolSettings
from lbproxy.supervise.backend import NotReady


def generation(number, **settings):
    values = {"name": "web", "command": ("app",), "size": 1, **settings}
    return Generation(number, PoolSettings(**values), directory="/app", env=())


@dataclass(eq=False)
class FakeMember:
    seat: Seat
    backend: Backend
    published: bool = False
    died: trio.Event = field(default_factory=trio.Event)
    gone: trio.Event = field(default_factory=trio.Event)

    def become(self, state):
        self.backend = replace(self.backend, state=state)

    def __repr__(self):
        return f"<{self.backend.id} {self.backend.state}>"


@dataclass(frozen=True)
class Behaviour:
    """What a fake backend does. Times are seconds of virtual time."""

    ready_after_s: float = 1.0
    breaks: bool = False  # is never proved
    dies_after_s: float | None = None  # so long after it was proved
    drains_in_s: float = 0.5
    stops_in_s: float = 0.2


class FakeFleet:
    """A FleetLike that keeps count. `behave(seat)` says what a backend does."""

    def __init__(self, nursery, behave):
        self.nursery = nursery
        self.behave = behave
        self.members = []
        self.epoch = 0
        self.log = []
        self.lowest_serving = 10**9
        self.highest_running = 0

    def add_old(self, seat, state=State.READY):
        member = self._member(seat, state)
        member.published = True
        return member

    def _member(self, seat, state):
        member = FakeMember(seat, Backend(BackendId("web", seat.slot, seat.generation.number), state, since=0.0))
        self.members.append(member)
        return member

    @property
    def serving(self):
        return [member for member in self.members if member.published and member.backend.state is State.READY]

    @property
    def running(self):
        out = (State.DRAINING, State.FAILED)
        return [member for member in self.members if member.backend.state not in out and not member.died.is_set()]

    def note(self):
        self.lowest_serving = min(self.lowest_serving, len(self.serving))
        # One that is being stopped after its drain does not count, one that never served does.
        running = [member for member in self.running if member.backend.state is not State.STOPPING]
        self.highest_running = max(self.highest_running, len(running))

    # FleetLike

    def make(self, seat):
        self.log.append(("make", seat.slot, seat.generation.number))
        member = self._member(seat, State.STARTING)
        self.note()
        return member

    make_again = make

    async def wait_proved(self, member):
        behaviour = self.behave(member.seat)
        await trio.sleep(behaviour.ready_after_s)
        if behaviour.breaks:
            member.become(State.FAILED)
            raise NotReady("exit code 1", ("Traceback", "ImportError"))
        member.become(State.READY)
        if behaviour.dies_after_s is not None:
            self.nursery.start_soon(self._die, member, behaviour.dies_after_s)

    async def _die(self, member, after_s):
        await trio.sleep(after_s)
        if not member.gone.is_set():
            member.become(State.BACKOFF)
            member.died.set()

    async def wait_died(self, member):
        await member.died.wait()
        return Broken("signal SIGSEGV", ("last words",))

    def publish(self, add, remove):
        self.epoch += 1
        for member in add:
            member.published = True
            if member.backend.state is State.DRAINING:
                member.become(State.READY)
                self.log.append(("take back", member.seat.slot, member.seat.generation.number))
        for member in remove:
            member.published = False
            if member.backend.state in (State.READY, State.UNHEALTHY):
                member.become(State.DRAINING)
        self.note()
        return self.epoch

    async def wait_applied(self, epoch):
        await trio.sleep(0.01)

    async def wait_drained(self, member):
        await trio.sleep(self.behave(member.seat).drains_in_s)

    async def stop(self, member):
        if member.gone.is_set():
            return
        assert not member.published, f"{member} is stopped while it is published"
        self.log.append(("stop", member.seat.slot, member.seat.generation.number))
        member.become(State.STOPPING)
        await trio.sleep(self.behave(member.seat).stops_in_s)
        if not member.gone.is_set():
            self.members.remove(member)
            member.gone.set()

    async def wait_gone(self, member):
        await member.gone.wait()
