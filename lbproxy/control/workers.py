"""The worker processes as control sees them: start, table, acknowledgement, replacement.

Knows no backend beyond its id and no client at all. A worker is one task here; when its process ends, for whatever
reason, the task starts the next one in the same row of the grid, with the same listening sockets, so their queues are
served on.
"""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import trio

from lbproxy.control.certificate_delivery import CertificateDelivery
from lbproxy.control.changed import Changed
from lbproxy.control.sockets import Sockets
from lbproxy.control.worker_process import COMMAND, WorkerProcess, WorkerStatus
from lbproxy.control.worker_watch import watch
from lbproxy.link.channel import Channel
from lbproxy.link.codec import LinkBroken
from lbproxy.link.grid import Grid
from lbproxy.link.messages import (
    Applied,
    AskStats,
    CertificatesLoaded,
    Drained,
    LogFile,
    Publish,
    Stats,
    Stop,
    ToControl,
    ToWorker,
    Unreachable,
    Welcome,
    WorkerEvent,
)
from lbproxy.model import BackendId, RoutingTable
from lbproxy.settings import LogSettings
from lbproxy.supervise.process import how_it_ended
from lbproxy.supervise.program_copy import child_environment
from lbproxy.supervise.session import MARK
from lbproxy.telemetry.events import Event, Notice, WorkerExited, WorkerStarted
from lbproxy.telemetry.sink import open_for_append

HEARTBEAT_S = 1.0
RESPAWN_PAUSE_S = 0.5  # after a worker that died in its first second or never served; doubled each time, up to:
RESPAWN_PAUSE_MAX_S = 2.0
EXIT_S = 1.0  # from the end of a worker's link to the end of its process
STOP_SLACK_S = 1.0
SENT_S = 1.0  # a worker that hangs reads nothing
STATS_WAIT_S = 1.0


class Workers:
    """`sockets` outlive every worker. `on_unreachable` gets the backend that refused a connection, and the reason."""

    def __init__(
        self,
        emit: Callable[[Event], None],
        grid: Grid,
        sockets: Sockets,
        *,
        log: LogSettings,
        on_unreachable: Callable[[BackendId, str], None],
        command: Sequence[str] = COMMAND,
        mark: str = "",
    ) -> None:
        self._emit = emit
        self._grid = grid
        self._sockets = sockets
        self._log = log
        self._on_unreachable = on_unreachable
        self._command = command
        # A hung worker would not notice the end of control: the guard ends it.
        self._env = {**child_environment(os.environ), MARK: mark}
        self._live: dict[int, WorkerProcess] = {}  # by id
        self._taken_rows: set[int] = set()
        self.wanted = 0
        self._table: RoutingTable | None = None
        self.changed = Changed()  # whenever something of a worker has
        self._nursery: trio.Nursery | None = None
        self._slots: set[int] = set()  # that have a task
        self._stopping = False
        self.ask = 0
        # Gets a worker's message before and its new one. May raise LinkBroken.
        self.on_stats: Callable[[Stats, Stats], None] = lambda before, stats: None
        self.delivery = CertificateDelivery()
        self.hearers: dict[type, Callable[[int, Any], None]] = {}  # of messages that concern other parts of control
        self.on_process: Callable[[int, bool], None] = lambda pid, lives: None  # it has been started, or has gone
        self.on_ended: Callable[[int], None] = lambda worker_id: None  # a worker's process has gone
        self.moves_under_way: Callable[[], int] = lambda: 0  # connections that no worker has for certain

    async def run(self) -> None:
        """Run the task of every worker. Returns after `stop` or `kill`. A cancellation kills the workers."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                for old in list(self._live.values()):
                    nursery.start_soon(self._attend, old)
                self.resize(self.wanted)
                nursery.start_soon(self._heartbeat)
                await self.changed.wait(lambda: self._stopping and not self._slots)
                nursery.cancel_scope.cancel()
        finally:
            self.kill()

    def resize(self, count: int) -> None:
        """Start workers until there are `count` (at most the rows of the grid). No surplus worker is started again."""
        self.wanted = min(count, self._grid.rows)
        if self._nursery is None or self._stopping:
            return
        for slot in range(1, self.wanted + 1):
            if slot not in self._slots:
                self._slots.add(slot)
                self._nursery.start_soon(self._keep, slot)

    def publish(self, table: RoutingTable) -> None:
        """Send a table to every worker that is not stopping. A stopping worker accepts no new client."""
        self._table = table
        for worker in self._serving():
            self._send_table(worker)
        self.changed.notify()

    async def wait_applied(self, epoch: int) -> None:
        """Returns when every worker that accepts clients has applied a table of at least `epoch`, or begins with one.

        A hung worker is killed, so the wait ends.
        """
        await self.changed.wait(lambda: all(max(worker.applied, worker.born) >= epoch for worker in self._serving()))

    async def wait_drained(self, backend: BackendId, epoch: int) -> None:
        """Returns when every live worker reports, after a table of at least `epoch`, that it has no lease on `backend`.

        A stopping worker does not report any more: the wait lasts until it is gone.
        """
        name = str(backend)
        await self.changed.wait(lambda: all(worker.is_drained(name, epoch) for worker in self._live.values()))

    async def wait_all_serving(self) -> None:
        """Returns when every wanted worker is alive and serves; also in a stop, when none is wanted any more."""
        await self.changed.wait(
            lambda: self._stopping or sum(one.state == "serving" for one in self._live.values()) >= self.wanted
        )

    async def renew_certificates(self) -> None:
        """Give every worker the certificates that it does not have. Returns when all have answered."""
        for worker in self._serving():
            if self._table is not None:
                self.delivery.send(worker, self._table.listeners, table_is_sent=True)
        await self.changed.wait(lambda: not any(worker.unanswered for worker in self._serving()))

    def adopt(self, worker: WorkerProcess) -> None:
        """A worker of the program before this one: see old_workers.py. Before `run`."""
        self._live[worker.id] = worker
        self._taken_rows.add(worker.id - 1)

    async def stop(self, grace_s: float) -> None:
        """Accept no new work; leases have `grace_s`. Returns when all processes are gone."""
        self._stopping = True
        with trio.move_on_after(SENT_S):  # the first table of a worker has the sockets with it
            for worker in self._serving():
                await worker.channel.wait_sent()
        # Only the workers hold the sockets now. They accept the handshakes in progress before they close them, and no
        # new one can begin.
        self._sockets.close()
        for worker in self._serving():
            self._stop_one(worker, grace_s)
        self.changed.notify()
        with trio.move_on_after(grace_s + STOP_SLACK_S):
            await self.changed.wait(lambda: not self._live)
        self.kill()
        await self.changed.wait(lambda: not self._live)

    def kill(self) -> None:
        self._stopping = True
        for worker in self._live.values():
            worker.process.kill()
        self.changed.notify()

    def reopen(self) -> None:
        """Open the access log anew."""
        for worker in self._live.values():
            self._send_log_file(worker)

    @property
    def is_spawning(self) -> bool:
        """Whether a process is being made that is not among `live` yet."""
        return len(self._taken_rows) != len(self._live)

    @property
    def is_stopping(self) -> bool:
        return self._stopping

    @property
    def serving(self) -> list[int]:
        """The ids of the workers that were not told to stop and have a table."""
        return sorted(worker.id for worker in self._serving() if worker.applied)

    def post(self, worker_id: int, message: ToWorker) -> None:
        """Ask one worker something; `hearers` get what it says. A worker that is gone says nothing."""
        if (worker := self._live.get(worker_id)) is not None:
            worker.channel.post(message)

    @property
    def live(self) -> Mapping[int, WorkerProcess]:
        """The workers whose processes run, by id."""
        return self._live

    def channels(self) -> dict[int, Channel]:
        """The link to each worker that serves, by pid."""
        return {worker.process.pid: worker.channel for worker in self._live.values() if worker.state == "serving"}

    async def wait_channels(self, known: Collection[int]) -> None:
        """Returns when a worker serves whose pid is not known."""
        await self.changed.wait(lambda: not self.channels().keys() <= set(known))

    async def stats(self) -> list[WorkerStatus]:
        """The status of each worker now. For a worker that does not answer in time it is the newest known one."""
        self.ask += 1
        ask = self.ask
        for worker in self._serving():
            worker.channel.post(AskStats(ask))
        with trio.move_on_after(STATS_WAIT_S):
            await self.changed.wait(lambda: all(one.stats.ask >= ask for one in self._serving() if one.applied))
        return self.known()

    def known(self) -> list[WorkerStatus]:
        """The newest known status of each worker."""
        return [worker.status for worker in sorted(self._live.values(), key=lambda worker: worker.id)]

    # One worker

    async def _keep(self, slot: int) -> None:
        pause_s = RESPAWN_PAUSE_S
        try:
            while not self._stopping and slot <= self.wanted:
                started = trio.current_time()
                served = False
                try:
                    served = await self._run_one(slot)
                except OSError as exc:  # out of processes, descriptors or memory: the next try may do better
                    self._emit(Notice(f"worker {slot} cannot be started: {exc.strerror or exc}"))
                if served and trio.current_time() - started >= 1.0:
                    pause_s = RESPAWN_PAUSE_S
                elif not self._stopping:
                    await trio.sleep(pause_s)
                    pause_s = min(2 * pause_s, RESPAWN_PAUSE_MAX_S)
        finally:
            self._slots.discard(slot)
            self.changed.notify()

    async def _run_one(self, slot: int) -> bool:
        """One process, from start to end. Returns whether it ever served."""
        await self.changed.wait(lambda: len(self._taken_rows) < self._grid.rows)  # old workers may have all of them
        rows = [slot - 1, *range(self._grid.rows)]
        row = next(row for row in rows if row not in self._taken_rows)
        self._taken_rows.add(row)
        try:
            worker = await WorkerProcess.spawn(self._command, self._env, row, slot)
        except BaseException:
            self._taken_rows.discard(row)
            raise
        self._live[worker.id] = worker
        self._emit(WorkerStarted(worker.id, worker.process.pid))
        self.on_process(worker.process.pid, True)
        welcome = Welcome(worker.id, self._grid.rows, self._grid.cells, self._log.format)
        worker.channel.post(welcome, [self._grid.fd])
        if self._stopping or slot > self.wanted:
            worker.state = "stopping"  # the order came while it was being started
            worker.process.kill()
        else:
            self._send_table(worker)
        return await self._attend(worker)

    async def _attend(self, worker: WorkerProcess) -> bool:
        """Talk with a worker until its end. Returns whether it ever served."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(worker.channel.run_writer)
                nursery.start_soon(self._listen, worker)
                nursery.start_soon(partial(watch, worker, self._epoch, self.changed, self._emit))
                await worker.wait_ended()
                with trio.move_on_after(EXIT_S):
                    await worker.silent.wait()
                nursery.cancel_scope.cancel()
        finally:
            worker.process.kill()
            with trio.CancelScope(shield=True):  # ends soon, because KILL cannot be ignored
                code = await worker.wait_ended()
            self.on_process(worker.process.pid, False)
            worker.channel.close()
            del self._live[worker.id]
            self._taken_rows.discard(worker.id - 1)
            self._grid.clear_gauges(worker.id - 1)
            self.on_ended(worker.id)
            self.changed.notify()
        if not self._stopping and worker.state != "stopping" and (worker.state != "leaving" or code):
            self._emit(WorkerExited(worker.id, worker.process.pid, how_it_ended(code)))
        return bool(worker.applied)

    def _send_table(self, worker: WorkerProcess) -> None:
        if self._table is not None:
            if worker.log != (log := (self._table.access, self._table.access_path)):
                worker.log = log
                self._send_log_file(worker)
            worker.born = worker.born or self._table.epoch
            if worker.state == "leaving":
                worker.channel.post(Publish(self._table, ()))
                return
            listeners = self._table.listeners
            # Only the sockets that it does not have yet: a worker without free descriptors could not take all again.
            new = [listener for listener in listeners if listener.key not in worker.holds]
            worker.holds = {listener.key for listener in listeners}
            fds = self._sockets.for_worker(worker.slot - 1, new)
            self.delivery.send(worker, listeners)
            worker.channel.post(Publish(self._table, tuple(listener.key for listener in new)), fds)
            self.delivery.send(worker, listeners, table_is_sent=True)

    def _send_log_file(self, worker: WorkerProcess) -> None:
        """A worker may have no right to open it."""
        format, path = worker.log
        if format == "off" or path == "-":
            return
        try:
            fd = open_for_append(path)
        except OSError as exc:
            self._emit(Notice(f"cannot open the access log {path}: {exc.strerror}"))
            return
        worker.channel.post(LogFile(path), give=[fd])

    async def _listen(self, worker: WorkerProcess) -> None:
        """Handle the messages of a worker. A worker that sends nonsense is replaced."""
        try:
            while (message := await worker.channel.receive()) is not None:
                self._take(worker, message)
                self.changed.notify()
            worker.silent.set()
            with trio.move_on_after(EXIT_S):
                await worker.wait_ended()  # it most likely exits by itself, and its exit code says why
        except LinkBroken as exc:
            self._emit(Notice(f"worker {worker.id} talks nonsense: {exc}"))
            worker.silent.set()
        if worker.state != "stopping":
            worker.process.kill()  # a worker without a link cannot be controlled

    def _take(self, worker: WorkerProcess, message: ToControl) -> None:
        match message:
            case Applied(epoch):
                if self._table is None or epoch > self._table.epoch:
                    raise LinkBroken(f"it applied table {epoch}, which it was never sent")
                worker.applied = max(worker.applied, epoch)
                if worker.state == "starting":
                    worker.state = "serving"
            case CertificatesLoaded(serial, why):
                self.delivery.answered(worker, serial, why)
            case Drained(backend, epoch):
                worker.note_drained(backend, epoch)
            case Unreachable(backend, why):
                try:
                    id = BackendId.parse(backend)
                except ValueError as exc:
                    raise LinkBroken(f"{backend!r} is no backend") from exc
                self._on_unreachable(id, why)
            case Stats():
                self.on_stats(worker.stats, message)
                worker.stats = message
            case _ if isinstance(message, WorkerEvent):
                self._emit(message)
            case _ if type(message) in self.hearers:
                self.hearers[type(message)](worker.id, message)

    def _epoch(self) -> int:
        return self._table.epoch if self._table is not None else 0

    async def _heartbeat(self) -> None:
        """Ask a worker for its stats between tables, to see that it answers."""
        while True:
            await trio.sleep(HEARTBEAT_S)
            self.ask += 1
            for worker in self._live.values():
                if worker.state in ("serving", "leaving"):
                    worker.asked = self.ask
                    worker.channel.post(AskStats(self.ask))
            self.changed.notify()

    def _serving(self) -> list[WorkerProcess]:
        """The workers that were not told to stop."""
        return [worker for worker in self._live.values() if worker.state != "stopping"]

    def _stop_one(self, worker: WorkerProcess, grace_s: float) -> None:
        worker.state = "stopping"
        worker.channel.post(Stop(grace_s))
