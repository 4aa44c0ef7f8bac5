"""The control process: the order in which its parts start, its signals, and its end.

Knows all parts of control. At the exit no process, socket or file of lbproxy is left.
"""

import contextlib
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import trio

from lbproxy.config.advice import advise
from lbproxy.config.user import identity_of
from lbproxy.control.admin import Admin
from lbproxy.control.announce import Announcer
from lbproxy.control.api import Api
from lbproxy.control.api_server import ApiServer, Door, admit_anyone
from lbproxy.control.audit import Audit
from lbproxy.control.certificate_orders import CertificateOrders
from lbproxy.control.connections import OpenConnections
from lbproxy.control.context import ControlContext, Hooks
from lbproxy.control.drains import Drains
from lbproxy.control.ejection import Ejector
from lbproxy.control.event_stream import EventStreams
from lbproxy.control.failures import FailedExchanges
from lbproxy.control.fleet import Fleet
from lbproxy.control.fleet_context import FleetContext, ProxyView
from lbproxy.control.measured import Measured
from lbproxy.control.memory import Memory
from lbproxy.control.memory_limits import MemoryLimits
from lbproxy.control.moving import Moving
from lbproxy.control.next_start import waiting_keys
from lbproxy.control.observation import resident_bytes
from lbproxy.control.outgoing_events import OutgoingEvents
from lbproxy.control.parts import Parts, Start, make_parts
from lbproxy.control.reloader import Reloader
from lbproxy.control.scrape import owners
from lbproxy.control.sticky import StickyTokens
from lbproxy.control.succession import Succession
from lbproxy.control.terminal import has_terminal
from lbproxy.control.upgrader import Site, Upgrader
from lbproxy.control.worker_process import worker_command
from lbproxy.control.workers import Workers
from lbproxy.link.grid import Counter
from lbproxy.model import BackendId, BackendSpec
from lbproxy.settings import Settings
from lbproxy.supervise.address_runner import AddressRunner
from lbproxy.supervise.handed_on import taken_time
from lbproxy.supervise.hook import run_hook
from lbproxy.supervise.process_runner import ProcessRunner
from lbproxy.supervise.resources import Resources
from lbproxy.supervise.runner import Runner
from lbproxy.telemetry.events import Event, Notice, ServeStarted, ServeStopped, ServeStopping

_CUT = 1  # exit code: a second TERM or INT cut something
_GUARD_START_S = 5.0
_LAST_LINES_S = 1.0  # for the clients that follow a log
_ECHO_S = 0.2  # `timeout` signals the process, then its group: the same signal within this time counts once
_LAST_EVENTS_S = 0.05  # for those who follow the events: their streams end properly, and are not broken off
_LAST_DELIVERIES_S = 1.0  # for events on their way to a webhook or to Redis
_STOPS = (signal.SIGTERM, signal.SIGINT)
_SIGNALS = (*_STOPS, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU)


def serve(settings: Settings, load: Callable[[], Settings], start: Start) -> int:
    """Run until told to stop; returns the exit code. Raises LbproxyError, one line for the operator, when it cannot
    start."""
    with contextlib.ExitStack() as owned:
        # From here on there are files to remove. A TERM before `_watch_signals` stays pending (a blocked signal is not
        # lost). A TERM after it is ignored, because control has ended already.
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
        if start.document is None:
            ignore_stops()
        else:
            owned.callback(ignore_stops)  # not now: that would drop the signals that came during the exec
        cut = trio.run(_run, make_parts(settings, start, owned), load)
    return _CUT if cut else 0


def ignore_stops() -> None:
    for number in _STOPS:
        signal.signal(number, signal.SIG_IGN)


async def _run(parts: Parts, load: Callable[[], Settings]) -> int:
    return await Control(parts, load).run()


class Control:
    """Made inside `trio.run`."""

    def __init__(self, parts: Parts, load: Callable[[], Settings]) -> None:
        settings = parts.settings
        self._parts = parts
        self._log = parts.log
        document = self._document = parts.start.document
        started = trio.current_time() if document is None else taken_time(document.started_at)
        worker = identity_of(settings.proxy.user)
        self._resources = Resources.make(self._emit, settings.proxy.ports, settings.log.backend_lines, worker)
        if document is not None:
            self._resources.take_over(document.resources)
        measured = Measured(probes=self._resources.probes)
        parts.log.observe(measured.events.take)
        self._workers = Workers(
            parts.log.emit,
            parts.grid,
            parts.sockets,
            log=replace(settings.log, format=parts.log.format),
            on_unreachable=self._on_unreachable,
            command=worker_command(worker),
            mark=self._resources.guard.new_mark(),
        )
        parts.certificates.serve_to(self._workers, parts.log.emit)
        self._workers.on_stats = measured.tallies.add
        self._workers.on_process = self._resources.guard.know
        self._moving = Moving(self._workers, parts.log.emit)
        self._tokens = StickyTokens(settings.proxy.state_dir, parts.log.emit)
        self._tokens.use(settings.sticky_keys)
        context = FleetContext(parts.log.emit, self._workers, parts.grid, parts.cells, self._make, self._tokens.token)
        self._fleet = Fleet(context, ProxyView.of(settings, parts.listeners))
        self._context = ControlContext(
            emit=parts.log.emit,
            fleet=self._fleet,
            sockets=parts.sockets,
            workers=self._workers,
            settings=settings,
            listeners=parts.listeners,
            worker_count=settings.proxy.workers if document is None else document.worker_count,
            most_workers=parts.grid.rows,
            apply_live=self._apply_live,
            certificates=parts.certificates,
            orders=CertificateOrders(self._fleet, parts.log.emit),
            measured=measured,
        )
        self._context.orders.apply(settings)
        self._ejector = Ejector(self._fleet, self._workers, parts.log.emit)
        self._reloader = Reloader(self._context, load)
        self._drains = Drains(self._context)
        self._audit = Audit(self._log.emit)
        self._audit.write_to(settings.log.audit_path)
        self._memory = Memory(settings.proxy.state_dir, self._context, self._audit)
        self._context.resident_bytes = resident_bytes
        self._context.hooks = Hooks(partial(run_hook, resources=self._resources), self._memory.history.record_of)
        self._succession = Succession(parts, self._context, self._resources, self._memory, self._drains, started)
        self._upgrader = Upgrader(self._site())
        if document is not None:
            self._upgrader.take_over(document.upgrade)
        self._api = Api(
            self._context,
            parts.grid,
            parts.log,
            self._resources.outputs,
            self._reloader,
            self._drains,
            self._stop,
            started,
            OpenConnections(self._workers, self._fleet),
            FailedExchanges(self._workers),
            self._memory.history,
            self._audit,
            EventStreams(parts.ring),
            self._is_stopping,
            upgrader=self._upgrader,
        )
        self._admin = Admin(settings.admin, parts.admin_socket, self._api)
        self._remarks: list[str] = []  # said of passed sockets
        self._outgoing = OutgoingEvents(parts.log)
        self._why = ""
        self._stop_signals: dict[int, float] = {}  # when each signal last counted
        self._cut = 0  # leases that a second signal ended
        self._stopping = trio.Event()
        self._at_once = trio.Event()

    async def run(self) -> int:
        """Start all parts, wait for the order to stop, then stop them: the parts that others need come last.

        Returns how many leases a second signal cut.
        """
        api_socket = trio.socket.from_stdlib_socket(self._parts.control_socket.sock)
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(self._watch_signals)
                nursery.start_soon(self._resources.children.run)
                nursery.start_soon(self._resources.guard.run)
                with trio.move_on_after(_GUARD_START_S):  # it is started until it runs; serving does not wait for it
                    await self._resources.guard.wait_listening()
                await nursery.start(self._outgoing.run, self._context.settings.events)
                await nursery.start(self._fleet.run)
                nursery.start_soon(self._ejector.run)
                await nursery.start(self._memory.run, self._log)
                await nursery.start(self._drains.run)
                await nursery.start(self._upgrader.run)
                if self._parts.notify is not None:
                    announcer = Announcer(self._parts.notify, self._context, self._log, self._document is not None)
                    await nursery.start(announcer.run)
                self._parts.certificates.adopt(self._parts.settings)
                if self._document is None:
                    self._start_pools()
                else:
                    self._succession.take_over(self._document)
                nursery.start_soon(self._workers.run)
                self._workers.resize(self._context.worker_count)
                nursery.start_soon(self._context.measured.usage.run, partial(owners, self._context))
                reloading = trio.CancelScope()
                await nursery.start(self._run_reloader, reloading)
                nursery.start_soon(MemoryLimits(self._context, self._reloader).run)
                door = Door(admit_anyone) if self._parts.settings.proxy.control_group is not None else None
                api_server = self._upgrader.api_server = ApiServer(api_socket, self._api.answer, self._log.emit, door)
                nursery.start_soon(api_server.run)
                nursery.start_soon(self._admin.run)
                nursery.start_soon(self._parts.certificates.run)
                nursery.start_soon(self._context.orders.run)
                if self._document is None:
                    self._say_started()
                else:
                    nursery.start_soon(self._resources.children.reap_orphans)
                    nursery.start_soon(self._upgrader.finish, self._document, self._context, api_server)
                await self._stopping.wait()
                reloading.cancel()
                self._upgrader.cancel()
                await self._shut_down()
                await self._api.followers.end(_LAST_LINES_S)
                if self._parts.ring.end():
                    await trio.sleep(_LAST_EVENTS_S)
                with trio.move_on_after(_LAST_DELIVERIES_S):
                    await self._outgoing.wait_done()
                nursery.cancel_scope.cancel()
        finally:
            self._resources.close()
            self._audit.close()
        cut = f"; a second signal cut {self._cut} in hand" if self._cut else ""
        self._log.emit(ServeStopped(f"{self._why}{cut}"))
        return self._cut

    def _start_pools(self) -> None:
        self._memory.restore()
        for generation in self._parts.generations:
            settings = generation.settings
            number = self._context.generations.number_of(generation) or self._fleet.next_number(settings.name)
            generation = replace(generation, number=number)
            self._fleet.start_pool(settings, generation)
            self._context.generations.served(generation)
        self._memory.save_generations()
        self._fleet.publish()

    def _site(self) -> Site:
        return Site(
            self._parts.start.program,
            self._log,
            self._resources,
            self._reloader,
            self._context.ids,
            self._succession,
            self._parts.passed.descriptors,
            _SIGNALS,
            self._audit,
            self._is_stopping,
        )

    def _say_started(self) -> None:
        settings = self._context.settings
        where = tuple(self._parts.sockets.where(view) for view in self._parts.listeners)
        for line in advise(settings):
            self._log.emit(Notice(line))
        self._remark_sockets()
        self._log.emit(ServeStarted(os.getpid(), settings.proxy.workers, where, settings.proxy.control))

    def _remark_sockets(self) -> None:
        context = self._context
        lines = self._parts.sockets.remarks(context.listeners, context.worker_count)
        for line in lines:
            if line not in self._remarks:
                self._log.emit(Notice(line))
        self._remarks = lines

    async def _run_reloader(
        self, scope: trio.CancelScope, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        with scope:
            await self._reloader.run(task_status=task_status)

    # Signals

    async def _watch_signals(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        with trio.open_signal_receiver(*_SIGNALS) as signals:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)  # before any spawn, because children inherit the mask
            task_status.started()
            async for number in signals:
                self._take_signal(signal.Signals(number))

    def _take_signal(self, number: signal.Signals) -> None:
        match number:
            case signal.SIGTERM | signal.SIGINT:
                now = trio.current_time()
                if now - self._stop_signals.get(number, float("-inf")) >= _ECHO_S:
                    self._stop_signals[number] = now
                    self._audit.note({"how": number.name.removeprefix("SIG")}, "stop", {}, "done")
                    if self._stopping.is_set() and not self._at_once.is_set():
                        self._cut = self._in_hand()
                    self._stop_because(number.name, now=False)
            case signal.SIGHUP if self._parts.ignores_hangup:
                pass
            case signal.SIGHUP if self._parts.has_terminal and not has_terminal():
                self._stop_because("HUP: the terminal is gone", now=False)
            case signal.SIGUSR2 | signal.SIGHUP:
                self._reloader.signal(number.name.removeprefix("SIG"))
            case signal.SIGUSR1:
                self._reopen()
            case signal.SIGTTIN | signal.SIGTTOU:
                self._reloader.scale_by(1 if number is signal.SIGTTIN else -1, number.name.removeprefix("SIG"))

    def _reopen(self) -> None:
        for name, reopen in (("log", self._log.reopen), ("audit log", self._audit.reopen)):
            try:
                reopen()
            except OSError as exc:
                self._log.emit(Notice(f"the {name} cannot be opened anew: {exc}"))
        self._workers.reopen()

    # The end

    def _is_stopping(self) -> bool:
        return self._stopping.is_set()

    def _stop(self, now: bool) -> None:
        self._stop_because("lbproxy stop", now=now)

    def _stop_because(self, why: str, *, now: bool) -> None:
        """Stop with grace the first time; at once if `now`, and the second time."""
        if now or self._stopping.is_set():
            self._at_once.set()
        if not self._stopping.is_set():
            self._why = why
            self._stopping.set()

    def _in_hand(self) -> int:
        """How many leases there are."""
        members = [member for pool in self._fleet.pools.values() for member in pool.members]
        return sum(self._parts.grid.sum(member.cell, Counter.LEASES) for member in members)

    async def _shut_down(self) -> None:
        """End the clients first, then the backends that serve them, all within shutdown_timeout."""
        proxy = self._context.settings.proxy
        grace_s = 0.0 if self._at_once.is_set() else proxy.shutdown_timeout_s
        deadline = trio.current_time() + grace_s
        self._log.emit(ServeStopping(self._why, grace_s))
        stop_s = max((pool.restart.stop_timeout_s for pool in self._context.settings.pools), default=0.0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._hurry)
            await self._workers.stop(grace_s - min(stop_s, grace_s / 3))
            await self._fleet.stop(deadline)
            nursery.cancel_scope.cancel()

    async def _hurry(self) -> None:
        await self._at_once.wait()
        self._workers.kill()
        self._fleet.kill()

    # Called by the parts

    def _emit(self, event: Event) -> None:
        self._log.emit(event)
        self._fleet.observe(event)

    def _on_unreachable(self, backend: BackendId, why: str) -> None:
        self._fleet.refused(backend, why)

    def _make(self, spec: BackendSpec, *, reload: str | None = None, trial: bool | None = None) -> Runner:
        kind = AddressRunner if spec.generation.settings.command is None else ProcessRunner
        return kind(spec, self._resources, reload=reload, trial=trial)

    def _apply_live(self, old: Settings, new: Settings) -> list[str]:
        if new.proxy.ports != old.proxy.ports:
            self._resources.ports.change(*new.proxy.ports)
        self._log.set_level(new.log.level)
        self._resources.outputs.logged_per_s = new.log.backend_lines
        self._audit.write_to(new.log.audit_path)
        self._admin.apply(new.admin)
        self._outgoing.apply(new.events)
        self._tokens.use(new.sticky_keys)
        self._context.orders.apply(new)
        notices = [line for line in advise(new) if line not in advise(old)]
        self._remark_sockets()
        waiting = waiting_keys(old, new, self._context.worker_count)
        return notices + [f"{key} has changed: that takes effect at the next start" for key in waiting]
