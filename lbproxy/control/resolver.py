"""Named targets: each name is looked up again and again, and its pools follow.

An address that comes is a new backend, one that goes is drained as by a reload. A lookup that fails, or finds nothing,
changes nothing and is said once. The addresses stand in names.py; fleet.py starts, publishes and drains.
"""

import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from ipaddress import ip_address

import trio

from lbproxy.control.context import ControlContext
from lbproxy.control.diff import gone, is_leaving, placed_at, target_of
from lbproxy.control.names import Name, names_of
from lbproxy.control.pool import Member, Pool, lowest_free
from lbproxy.control.pool_handle import PoolHandle
from lbproxy.errors import LbproxyError
from lbproxy.model import BackendSpec
from lbproxy.settings import Settings
from lbproxy.supervise.runner import NotReady
from lbproxy.telemetry.events import Notice, PoolResolved

AGAIN_S = 10.0
AGAIN_UNKNOWN_S = 1.0  # of a name that was never resolved
FORGET_S = 600.0  # a name that no pool has; a reload may be about to bring it
LEARN_S = 5.0  # a reload waits so long for the names that it brings
READY_S = 10.0  # so long an address that goes waits for those that come
CONNECT_S = 0.5
MOST_ADDRESSES = 256  # of one name

LookUp = Callable[[str, int], Awaitable[Sequence[str]]]


class NotFound(LbproxyError):
    """A name has no address, for the reason in words."""


async def look_up(host: str, port: int) -> Sequence[str]:
    """Every address of the name; of several loopback addresses the one that answers. Raises NotFound."""
    try:
        found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, RuntimeError) as exc:  # RuntimeError: there can be no further thread
        raise NotFound(getattr(exc, "strerror", None) or str(exc)) from None
    except UnicodeError:
        raise NotFound("not the name of a host") from None
    addresses = sorted({str(where[0]) for *_, where in found})
    addresses = [one for one in addresses if "%" not in one]  # link-local: of no use without its interface
    if len(addresses) > 1 and all(ip_address(one).is_loopback for one in addresses):
        return [await _answering(addresses, port)]
    return addresses


async def _answering(addresses: Sequence[str], port: int) -> str:
    """The first that accepts a connection, else the first: `localhost` is one server, on one family or on both."""
    for address in addresses:
        with trio.move_on_after(CONNECT_S):
            try:
                stream = await trio.open_tcp_stream(address, port)
            except OSError:
                continue
            await stream.aclose()
            return address
    return addresses[0]


class Resolver:
    def __init__(self, context: ControlContext, look_up: LookUp = look_up) -> None:
        self._context = context
        self._look_up = look_up
        self._names = context.fleet.names
        self._watched: dict[Name, trio.Event] = {}  # names that have a task; set: there was an answer
        self._failing: set[Name] = set()
        self._retiring: set[str] = set()  # pools
        self._nursery: trio.Nursery | None = None

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as self._nursery:
            self._watch(names_of(self._context.settings.pools))
            task_status.started()
            await trio.sleep_forever()

    async def learn(self, settings: Settings) -> None:
        """Look up the names that are new in these settings; returns when there are answers, after LEARN_S at most."""
        new = names_of(settings.pools) - self._watched.keys()
        self._watch(new)
        with trio.move_on_after(LEARN_S):
            for name in new:
                await self._watched[name].wait()

    def _watch(self, names: set[Name]) -> None:
        assert self._nursery is not None, "the resolver does not run"
        for name in names:
            self._watched[name] = trio.Event()
            self._nursery.start_soon(self._keep_looking, name)

    async def _keep_looking(self, name: Name) -> None:
        """One lookup at a time, however long it takes: a name server that is silent holds one thread per name."""
        used_at = trio.current_time()
        while trio.current_time() - used_at < FORGET_S:
            await self._look(name)
            self._watched[name].set()
            for pool in list(self._context.fleet.pools.values()):
                if name in names_of([pool.settings]):
                    used_at = trio.current_time()
                    self._try_to_follow(pool)
            await trio.sleep(AGAIN_S if name in self._names.found else AGAIN_UNKNOWN_S)
        del self._watched[name]
        self._names.found.pop(name, None)
        self._failing.discard(name)

    async def _look(self, name: Name) -> None:
        host, port = name
        try:
            found = tuple(await self._look_up(host, port))
            if not found:
                raise NotFound("it has no address")
        except NotFound as exc:
            if name not in self._failing:
                self._failing.add(name)
                stays = "its addresses stay as they were" if name in self._names.found else "tried again every second"
                self._context.emit(Notice(f"the target {host}:{port} cannot be resolved ({exc}): {stays}"))
            return
        if name in self._failing:
            self._failing.remove(name)
            self._context.emit(Notice(f"the target {host}:{port} is resolved again"))
        self._names.found[name] = found[:MOST_ADDRESSES]

    # The pool

    def _try_to_follow(self, pool: Pool) -> None:
        try:
            self._follow(pool)
        except Exception as exc:  # a mistake of ours, which must not end control
            self._context.emit(Notice(f"{pool.name} does not follow its names: lbproxy made a mistake: {exc!r}"))

    def _follow(self, pool: Pool) -> None:
        """Not during a reload, nor while the last change is carried out: the next answer comes soon."""
        if pool.reloading or pool.closing or pool.name in self._retiring or self._nursery is None:
            return
        fleet, targets = self._context.fleet, pool.settings.targets
        present = {target_of(member.spec) for member in pool.members if not is_leaving(member)}
        come = [target for target in self._names.expand(targets) if target not in present]
        leave = gone(pool, targets)
        if not come and not leave:
            return
        left = tuple(str(target_of(member.spec) or member.backend.address) for member in leave)
        self._context.emit(PoolResolved(pool.name, tuple(map(str, come)), left))
        slots = lowest_free((member.spec.slot for member in pool.members), len(come))  # also of those that drain
        placed = placed_at(replace(pool.generation, settings=pool.settings), dict(zip(slots, come, strict=True)))
        fresh = [fleet.start_member(pool, BackendSpec(slot, placed)) for slot in slots]
        for member in fresh:
            member.published = True
        fleet.touch()
        if leave:
            self._retiring.add(pool.name)
            self._nursery.start_soon(self._retire, pool, fresh, leave)

    async def _retire(self, pool: Pool, fresh: list[Member], members: Sequence[Member]) -> None:
        """Drain those that go once those that come are ready, or have had their time."""
        try:
            with trio.move_on_after(READY_S):
                for member in fresh:
                    await _wait_settled(member)
            if pool.reloading:
                return  # it retires them, too
            leave = [member for member in members if member in pool.members and not is_leaving(member)]
            handle = PoolHandle(self._context.fleet, pool)
            handle.publish([], leave)
            async with trio.open_nursery() as nursery:
                for member in leave:
                    nursery.start_soon(handle.retire, member)
        finally:
            self._retiring.discard(pool.name)


async def _wait_settled(member: Member) -> None:
    try:
        await member.runner.wait_ready()
    except NotReady:
        return  # its runner says so
