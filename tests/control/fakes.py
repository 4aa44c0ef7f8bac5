"""Hand-written stand-ins: backends without processes, workers without processes, in virtual time."""

from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import trio
import trio.testing

from control.quiet_sink import QuietSink
from lbproxy.address import Address
from lbproxy.control.certificate_orders import CertificateOrders
from lbproxy.control.certificates import Certificates
from lbproxy.control.context import ControlContext
from lbproxy.control.fleet import Fleet
from lbproxy.control.fleet_context import FleetContext, ProxyView
from lbproxy.control.listening_socket import BindFailed
from lbproxy.control.rollout import Broken
from lbproxy.link.grid import CellBook, Counter, Grid
from lbproxy.model import Backend, BackendId, BackendSpec, Generation, ListenerView, State
from lbproxy.policy.lifecycle import LifecycleEvent, spawned
from lbproxy.settings import ListenerSettings, PoolSettings, ProxySettings, ReloadSettings, Settings
from lbproxy.supervise.resources import Resources
from lbproxy.supervise.runner import NotReady, Runner
from lbproxy.telemetry.events import BackendExited
from lbproxy.telemetry.log import Log

KINDS = range(Counter.REQUEST, Counter.TCP + 1)


def generation(number, **settings):
    values = {"name": "web", "command": ("app",), "size": 1, **settings}
    return Generation(number, PoolSettings(**values), directory="/app", env=())


@dataclass(eq=False)
class FakeMember:
    spec: BackendSpec
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
    """A FleetLike that keeps count. `behave(spec)` says what a backend does."""

    def __init__(self, nursery, behave):
        self.nursery = nursery
        self.behave = behave
        self.members = []
        self.epoch = 0
        self.log = []
        self.lowest_serving = 10**9
        self.highest_running = 0

    def add_old(self, spec, state=State.READY):
        member = self._member(spec, state)
        member.published = True
        return member

    def _member(self, spec, state):
        member = FakeMember(spec, Backend(BackendId("web", spec.slot, spec.generation.number), state, since=0.0))
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

    def make(self, spec):
        self.log.append(("make", spec.slot, spec.generation.number))
        member = self._member(spec, State.STARTING)
        self.note()
        return member

    make_again = make

    async def wait_proved(self, member):
        behaviour = self.behave(member.spec)
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
                self.log.append(("take back", member.spec.slot, member.spec.generation.number))
        for member in remove:
            member.published = False
            if member.backend.state in (State.READY, State.UNHEALTHY):
                member.become(State.DRAINING)
        self.note()
        return self.epoch

    async def wait_applied(self, epoch):
        await trio.sleep(0.01)

    async def wait_drained(self, member):
        await trio.sleep(self.behave(member.spec).drains_in_s)

    async def stop(self, member):
        if member.gone.is_set():
            return
        assert not member.published, f"{member} is stopped while it is published"
        self.log.append(("stop", member.spec.slot, member.spec.generation.number))
        member.become(State.STOPPING)
        await trio.sleep(self.behave(member.spec).stops_in_s)
        if not member.gone.is_set():
            self.members.remove(member)
            member.gone.set()

    async def wait_gone(self, member):
        await member.gone.wait()


class FakeBackend(Runner):
    """A backend's runner without a process. `World.behave(spec)` says how it goes."""

    def __init__(self, world, spec, *, reload=None, trial=None):
        super().__init__(spec, world.resources, reload=reload, trial=trial)
        self.world = world
        self.killed = trio.Event()

    @property
    def behaviour(self):
        return self.world.behave(self.spec)

    async def run(self):
        self._began = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.live)
            await self._stop.wait()
            nursery.cancel_scope.cancel()
        with trio.move_on_after(self.behaviour.stops_in_s):
            await self.killed.wait()
        self._ended.set()

    def kill(self, why=""):
        super().kill(why)
        self.killed.set()

    async def live(self):
        self.world.pids += 1
        address = Address("127.0.0.1", 20000 + self.world.pids)
        self._set(spawned(self.backend, address, self.world.pids))
        await trio.sleep(self.behaviour.ready_after_s)
        if self.behaviour.breaks:
            self._become(LifecycleEvent.GAVE_UP)
            self._fail("exit code 1", ("Traceback", "ImportError"))
            return
        self._become_ready()

    async def wait_proved(self, min_ready_s):
        await self.wait_ready()
        await trio.sleep(min_ready_s)
        self._raise_failure()
        self._trial = False
        if self.behaviour.dies_after_s is not None:
            self.world.nursery.start_soon(self.die_later, self.behaviour.dies_after_s)

    async def die_later(self, after_s):
        await trio.sleep(after_s)
        self.die()

    def die(self, how="signal SIGSEGV"):
        if self.backend.state is not State.STOPPING:
            self._become(LifecycleEvent.DIED)
            output = ("last words",)
            self._emit(BackendExited(self.id.pool, str(self.id), 1, how, 1.0, output, self.reload))

    def fall(self):
        self._become(LifecycleEvent.FELL)


class FakeWorkers:
    """Applies every table at once; a backend is drained when it is not in `busy`."""

    def __init__(self):
        self.tables, self.asked = [], []
        self.busy = set()
        self.changed = trio.Event()
        self.hearers, self.count = {}, 1

    def publish(self, table):
        assert not self.tables or table.epoch > self.tables[-1].epoch
        self.tables.append(table)

    async def wait_applied(self, epoch):
        await trio.lowlevel.checkpoint()
        assert self.tables[-1].epoch >= epoch

    async def wait_drained(self, backend, epoch):
        self.asked.append((str(backend), epoch))
        while str(backend) in self.busy:
            await self.changed.wait()

    def release(self, backend):
        self.busy.discard(backend)
        self.changed.set()
        self.changed = trio.Event()

    def resize(self, count):
        self.count = count

    known = staticmethod(list)  # nobody

    async def stats(self):
        return []

    @property
    def served(self):
        """The backends of the newest table."""
        return sorted(str(view.id) for pool in self.tables[-1].pools for view in pool.backends)


class FakeSockets:
    def __init__(self):
        self.taken = set()
        self.hidden, self.shown, self.released = [], [], []

    def bind(self, listeners, workers, *, hidden=False):
        for listener in listeners:
            if str(listener.address) in self.taken:
                raise BindFailed(f"cannot listen on {listener.address}: address already in use")
        return tuple(ListenerView(key, 0, listener) for key, listener in enumerate(listeners, start=1))

    def why_not(self, address):
        return f"cannot listen on {address}: address already in use" if str(address) in self.taken else None

    def show(self, views):
        self.shown.append(tuple(str(view.settings.address) for view in views))

    def hide_others(self, keep):
        self.hidden.append(tuple(str(view.settings.address) for view in keep))

    def release_others(self, keep, workers):
        self.released.append((tuple(str(view.settings.address) for view in keep), workers))


def settings_of(*pools, listeners=("127.0.0.1:80",), workers=1, **more):
    return Settings(
        path="lb.toml",
        proxy=ProxySettings("edge", workers, "/run/lb.sock", None, (20000, 29999), 100),
        listeners=tuple(ListenerSettings(text, Address.parse(text)) for text in listeners),
        routes=(),
        pools=tuple(pools),
        **more,
    )


def pool_settings(name="web", size=2, **more):
    defaults = {"command": ("app",), "reload": ReloadSettings(min_ready_s=0.1)}
    return PoolSettings(name, size=size, **{**defaults, **more})


def made_of(settings):
    """What resolve_all would say."""
    return tuple(Generation(0, pool, "/app", pool.env) for pool in settings.pools)


class World:
    """Control without processes and sockets: `async with World(settings) as world`."""

    def __init__(self, settings, behave=lambda spec: Behaviour(), cells=64):
        self.settings = settings
        self.behave = behave
        self.events, self.applied_live, self.notices = [], [], []
        self.said = trio.Event()
        self.pids = 0
        self.log = Log(QuietSink(), level="error", format="json")
        self.resources = Resources.make(self.emit, (20000, 29999), 100)
        self.grid = Grid.create(2, cells)
        self.cells = CellBook(self.grid)
        self.workers = FakeWorkers()
        self.sockets = FakeSockets()
        listeners = self.sockets.bind(settings.listeners, 1)
        context = FleetContext(self.emit, self.workers, self.grid, self.cells, self.make)
        self.fleet = Fleet(context, ProxyView.of(settings, listeners))
        self.context = ControlContext(
            emit=self.emit,
            fleet=self.fleet,
            sockets=self.sockets,
            workers=self.workers,
            settings=settings,
            listeners=listeners,
            worker_count=1,
            most_workers=2,
            apply_live=lambda old, new: self.applied_live.append((old, new)) or self.notices,
            certificates=Certificates(settings),
            orders=CertificateOrders(self.fleet, self.emit),
        )

    def emit(self, event):
        self.events.append(event)
        self.said.set()
        self.said = trio.Event()
        self.log.emit(event)
        self.fleet.observe(event)

    def make(self, spec, *, reload=None, trial=None):
        return FakeBackend(self, spec, reload=reload, trial=trial)

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]

    async def wait_for(self, kind, count=1):
        """Until so many events of this kind have been said."""
        while len(self.of(kind)) < count:
            await self.said.wait()

    def member(self, name):
        for pool in self.fleet.pools.values():
            for member in pool.members:
                if str(member.backend.id) == name:
                    return member
        raise KeyError(name)

    def count(self, name, counter, number=1):
        """As a worker would."""
        base = self.grid.base(0, self.member(name).cell)
        if counter in KINDS:
            self.grid.values[base + Counter.LEASES] += number
        if counter is not Counter.REQUEST:
            self.grid.values[base + counter] += number

    async def start(self):
        """First start, to the moment when all are ready."""
        for made_from in made_of(self.settings):
            number = self.fleet.next_number(made_from.settings.name)
            self.fleet.start_pool(made_from.settings, replace(made_from, number=number))
        self.fleet.publish()
        for pool in self.fleet.pools.values():
            for member in pool.members:
                await member.runner.wait_ready()
        await trio.testing.wait_all_tasks_blocked()

    @asynccontextmanager
    async def running(self):
        async with trio.open_nursery() as self.nursery:
            await self.nursery.start(self.fleet.run)
            await self.start()
            yield self
            self.nursery.cancel_scope.cancel()
        self.grid.close()
