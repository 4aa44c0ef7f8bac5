"""The worker processes as control sees them: start, table, acknowledgement, replacement.

Knows no backend beyond its id and no client at all. A worker is one task here; when its process ends, for whatever
reason, the task starts the next one in the same row of the grid, with the same listening sockets, so their queues are
served on.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Collection, Sequence
from typing import Any

import trio

from lbproxy.control.certificate_delivery import CertificateDelivery
from lbproxy.control.sockets import Sockets
from lbproxy.control.worker_process import WorkerProcess, WorkerStatus
from lbproxy.link.channel import Channel
from lbproxy.link.codec import LinkBroken
from lbproxy.link.grid import Grid
from lbproxy.link.messages import (
    Applied,
    AskStats,
    CertificatesLoaded,
    Drained,
    Publish,
    Reopen,
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
from lbproxy.telemetry.events import Event, Notice, WorkerExited, WorkerHung, WorkerStarted

# -P: a trio.py in the working directory must not be imported. The descriptor of the link is added as an argument.
COMMAND = (sys.executable, "-P", "-m", "lbproxy.worker")
HUNG_AFTER_S = 5.0  # a worker that does not acknowledge a table, or does not answer, for so long is hung
START_S = 20.0  # the same for a worker that has just been started: it imports its modules first
HEARTBEAT_S = 1.0
RESPAWN_PAUSE_S = 0.5  # after a worker that died in its first second or never served; doubled each time, up to:
RESPAWN_PAUSE_MAX_S = 2.0
EXIT_S = 1.0  # from the end of a worker's link to the end of its process
STOP_SLACK_S = 1.0
STATS_WAIT_S = 1.0
REMEMBERED_DRAINS = 4096


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
        self._env = {
            **child_environment(os.environ),
            MARK: mark,
        }  # a hung worker would not notice the end of control: the guard ends it
        self._live: dict[int, WorkerProcess] = {}
        self._wanted = 0
        self._table: RoutingTable | None = None
        self._changed = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._rows: set[int] = set()  # ids that have a task
        self._stopping = False
        self._ask = 0
        # Gets a worker's message before and its new one. May raise LinkBroken.
        self.on_stats: Callable[[Stats, Stats], None] = lambda before, stats: None
        self.delivery = CertificateDelivery()
        self.hearers: dict[type, Callable[[int, Any], None]] = {}  # of messages that concern other parts of control

    async def run(self) -> None:
        """Run the task of every worker. Returns after `stop` or `kill`. A cancellation kills the workers."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                self.resize(self._wanted)
                nursery.start_soon(self._heartbeat)
                await self._wait(lambda: self._stopping and not self._rows)
                nursery.cancel_scope.cancel()
        finally:
            self.kill()

    def resize(self, count: int) -> None:
        """Start workers until there are `count` (at most the rows of the grid). No surplus worker is started again."""
        self._wanted = min(count, self._grid.rows)
        if self._nursery is None or self._stopping:
            return
        for worker_id in range(1, self._wanted + 1):
            if worker_id not in self._rows:
                self._rows.add(worker_id)
                self._nursery.start_soon(self._keep, worker_id)

    def publish(self, table: RoutingTable) -> None:
        """Send a table to every worker that is not stopping. A stopping worker accepts no new client."""
        self._table = table
        for worker in self._serving():
            self._send_table(worker)
        self._notify()

    async def wait_applied(self, epoch: int) -> None:
        """Returns when every worker that accepts clients has applied a table of at least `epoch`, or begins with one.

        A hung worker is killed, so the wait ends.
        """
        await self._wait(lambda: all(max(worker.applied, worker.born) >= epoch for worker in self._serving()))

    async def wait_drained(self, backend: BackendId, epoch: int) -> None:
        """Returns when every live worker reports, after a table of at least `epoch`, that it has no lease on `backend`.

        A stopping worker does not report any more: the wait lasts until it is gone.
        """
        name = str(backend)
        await self._wait(
            lambda: all(max(worker.drained.get(name, 0), worker.born) >= epoch for worker in self._live.values())
        )

    async def wait_all_serving(self) -> None:
        """Returns when every wanted worker is alive and serves; also in a stop, when none is wanted any more."""
        await self._wait(
            lambda: self._stopping or sum(one.state == "serving" for one in self._live.values()) >= self._wanted
        )

    async def renew_certificates(self) -> None:
        """Give every worker the certificates that it does not have. Returns when all have answered."""
        for worker in self._serving():
            if self._table is not None:
                self.delivery.send(worker, self._table.listeners, table_is_sent=True)
        await self._wait(lambda: not any(worker.unanswered for worker in self._serving()))

    async def stop(self, grace_s: float) -> None:
        """Accept no new work; leases have `grace_s`. Returns when all processes are gone."""
        self._stopping = True
        # Only the workers hold the sockets now. They accept the handshakes in progress before they close them, and no
        # new one can begin.
        self._sockets.close()
        for worker in self._serving():
            self._stop_one(worker, grace_s)
        self._notify()
        with trio.move_on_after(grace_s + STOP_SLACK_S):
            await self._wait(lambda: not self._live)
        self.kill()
        await self._wait(lambda: not self._live)

    def kill(self) -> None:
        self._stopping = True
        for worker in self._live.values():
            worker.process.kill()
        self._notify()

    def reopen(self) -> None:
        for worker in self._live.values():
            worker.channel.post(Reopen())

    @property
    def serving(self) -> list[int]:
        """The ids of the workers that were not told to stop and have a table."""
        return sorted(worker.id for worker in self._serving() if worker.applied)

    def post(self, worker_id: int, message: ToWorker) -> None:
        """Ask one worker something; `hearers` get what it says. A worker that is gone says nothing."""
        if (worker := self._live.get(worker_id)) is not None:
            worker.channel.post(message)

    def channels(self) -> dict[int, Channel]:
        """The link to each worker that serves, by pid."""
        return {worker.process.pid: worker.channel for worker in self._live.values() if worker.state == "serving"}

    async def wait_channels(self, known: Collection[int]) -> None:
        """Returns when a worker serves whose pid is not known."""
        await self._wait(lambda: not self.channels().keys() <= set(known))

    async def stats(self) -> list[WorkerStatus]:
        """The status of each worker now. For a worker that does not answer in time it is the newest known one."""
        self._ask += 1
        ask = self._ask
        for worker in self._serving():
            worker.channel.post(AskStats(ask))
        with trio.move_on_after(STATS_WAIT_S):
            await self._wait(lambda: all(worker.stats.ask >= ask for worker in self._serving() if worker.applied))
        return self.known()

    def known(self) -> list[WorkerStatus]:
        """The newest known status of each worker."""
        return [
            WorkerStatus(worker.id, worker.process.pid, worker.state, worker.stats)
            for worker in sorted(self._live.values(), key=lambda worker: worker.id)
        ]

    # One worker

    async def _keep(self, worker_id: int) -> None:
        pause_s = RESPAWN_PAUSE_S
        try:
            while not self._stopping and worker_id <= self._wanted:
                started = trio.current_time()
                served = False
                try:
                    served = await self._run_one(worker_id)
                except OSError as exc:  # out of processes, descriptors or memory: the next try may do better
                    self._emit(Notice(f"worker {worker_id} cannot be started: {exc.strerror or exc}"))
                if served and trio.current_time() - started >= 1.0:
                    pause_s = RESPAWN_PAUSE_S
                elif not self._stopping:
                    await trio.sleep(pause_s)
                    pause_s = min(2 * pause_s, RESPAWN_PAUSE_MAX_S)
        finally:
            self._rows.discard(worker_id)
            self._notify()

    async def _run_one(self, worker_id: int) -> bool:
        """One process, from start to end. Returns whether it ever served."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            process = await trio.lowlevel.open_process(
                [*self._command, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=self._env,
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        worker = WorkerProcess(worker_id, process, Channel(ours, ToControl))
        self._live[worker_id] = worker
        self._emit(WorkerStarted(worker_id, process.pid))
        row = worker_id - 1
        welcome = Welcome(worker_id, self._grid.rows, self._grid.cells, self._log.format)
        worker.channel.post(welcome, [self._grid.fd])
        if self._stopping or worker_id > self._wanted:
            worker.state = "stopping"  # the order came while it was being started
            process.kill()
        else:
            self._send_table(worker)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(worker.channel.run_writer)
                nursery.start_soon(self._listen, worker)
                nursery.start_soon(self._watch, worker)
                await process.wait()
                with trio.move_on_after(EXIT_S):
                    await worker.silent.wait()
                nursery.cancel_scope.cancel()
        finally:
            process.kill()
            with trio.CancelScope(shield=True):  # ends soon, because KILL cannot be ignored
                await process.wait()
            worker.channel.close()
            del self._live[worker_id]
            self._grid.clear_gauges(row)
            self._notify()
        assert process.returncode is not None
        if not self._stopping and worker.state != "stopping":
            self._emit(WorkerExited(worker_id, process.pid, how_it_ended(process.returncode)))
        return bool(worker.applied)

    def _send_table(self, worker: WorkerProcess) -> None:
        if self._table is not None:
            worker.born = worker.born or self._table.epoch
            listeners = self._table.listeners
            # Only the sockets that it does not have yet: a worker without free descriptors could not take all again.
            new = [listener for listener in listeners if listener.key not in worker.holds]
            worker.holds = {listener.key for listener in listeners}
            fds = self._sockets.for_worker(worker.id - 1, new)
            self.delivery.send(worker, listeners)
            worker.channel.post(Publish(self._table, tuple(listener.key for listener in new)), fds)
            self.delivery.send(worker, listeners, table_is_sent=True)

    async def _listen(self, worker: WorkerProcess) -> None:
        """Handle the messages of a worker. A worker that sends nonsense is replaced."""
        try:
            while (message := await worker.channel.receive()) is not None:
                self._take(worker, message)
                self._notify()
            worker.silent.set()
            with trio.move_on_after(EXIT_S):
                await worker.process.wait()  # it most likely exits by itself, and its exit code says why
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
                worker.drained[backend] = epoch
                while len(worker.drained) > REMEMBERED_DRAINS:
                    del worker.drained[next(iter(worker.drained))]
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

    async def _watch(self, worker: WorkerProcess) -> None:
        """Kill and replace a worker that does not acknowledge a table, or does not answer, within HUNG_AFTER_S."""
        while True:
            await self._wait(lambda: self._is_behind(worker))
            epoch, asked = self._table.epoch if self._table is not None else 0, worker.asked
            patience_s = HUNG_AFTER_S if worker.applied else START_S
            # In two halves: if control itself was suspended, the answer is there to be read after the first half.
            if await self._catches_up(worker, epoch, asked, patience_s / 2):
                continue
            if await self._catches_up(worker, epoch, asked, patience_s / 2):
                continue
            self._emit(WorkerHung(worker.id, worker.process.pid, epoch))
            worker.process.kill()
            return

    async def _catches_up(self, worker: WorkerProcess, epoch: int, asked: int, within_s: float) -> bool:
        with trio.move_on_after(within_s):
            await self._wait(
                lambda: worker.state == "stopping" or (worker.applied >= epoch and worker.stats.ask >= asked)
            )
            return True
        return False

    def _is_behind(self, worker: WorkerProcess) -> bool:
        late = self._table is not None and worker.applied < self._table.epoch
        return worker.state != "stopping" and (late or worker.stats.ask < worker.asked)

    async def _heartbeat(self) -> None:
        """Ask a worker for its stats between tables, to see that it answers."""
        while True:
            await trio.sleep(HEARTBEAT_S)
            self._ask += 1
            for worker in self._live.values():
                if worker.state == "serving":
                    worker.asked = self._ask
                    worker.channel.post(AskStats(self._ask))
            self._notify()

    def _serving(self) -> list[WorkerProcess]:
        """The workers that were not told to stop."""
        return [worker for worker in self._live.values() if worker.state != "stopping"]

    def _stop_one(self, worker: WorkerProcess, grace_s: float) -> None:
        worker.state = "stopping"
        worker.channel.post(Stop(grace_s))

    # Waiting

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def _wait(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._changed.wait()
