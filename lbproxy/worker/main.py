"""A worker process: its nurseries, its end of the link, its end.

Owns nothing but connections. What it knows comes with the table; when the link ends, it ends.
"""

import gc
import os
import resource
import signal
import socket
import traceback
from collections.abc import Callable

import trio

from lbproxy.link.channel import Channel
from lbproxy.link.grid import Grid
from lbproxy.link.messages import (
    Applied,
    AskConnections,
    AskStats,
    Certificates,
    CertificatesLoaded,
    CloseConnection,
    Closed,
    CopyAccess,
    Drained,
    GaveAway,
    GiveAway,
    LogFile,
    Publish,
    Released,
    Stats,
    Stop,
    Take,
    Taken,
    ToWorker,
    Welcome,
)
from lbproxy.model import BackendView
from lbproxy.privileges import Identity, renounce
from lbproxy.telemetry.access import AccessLog
from lbproxy.telemetry.events import LogDropped, Notice
from lbproxy.telemetry.line_copies import LineCopies
from lbproxy.telemetry.sink import Sink, is_same_file
from lbproxy.tls.contexts import BadCertificate, Pair, ServerContexts
from lbproxy.worker.backends.connections import SWEEP_S, BackendConnections
from lbproxy.worker.connection_list import ConnectionList
from lbproxy.worker.context import Context
from lbproxy.worker.error_reports import REPORT_S
from lbproxy.worker.events_to_control import EventsToControl
from lbproxy.worker.front.accept import Acceptor
from lbproxy.worker.giving import Giver
from lbproxy.worker.io.reactor import NEVER, Reactor
from lbproxy.worker.io.recent_peak import Recent
from lbproxy.worker.lanes import Lanes
from lbproxy.worker.leases.choice import LONG_LIVED
from lbproxy.worker.leases.router import Router
from lbproxy.worker.taking import Taker

FLUSH_S = 0.0  # an access line waits for the reactor's next tick, not longer
CLOSE_LOG_S = 0.5
LAST_WORDS_S = 0.5  # to control, at the end
LONGEST_WITHIN_S = 60.0  # `longest` in Stats: control asks every second, and a peak must be seen for longer than that
GC_THRESHOLDS = (20_000, 20, 20)  # thousands of connections in hand are no garbage: look at them seldom


def main(fd: int, identity: Identity | None = None) -> int:
    """Run until the link ends or control says stop. `fd` is the link, `identity` the user that a worker becomes."""
    # A stray `pkill -USR2 -f lbproxy` reaches workers too, and so does the TERM of a service manager that stops us:
    # it is for control to say how a worker ends.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    renounce(identity)
    return trio.run(_run, Channel(socket.socket(fileno=fd), ToWorker))


async def _run(channel: Channel) -> int:
    welcome = await channel.receive()
    if not isinstance(welcome, Welcome):
        return 1
    (grid_fd,) = channel.take_fds(1)
    worker = Worker(channel, welcome, Grid(grid_fd, welcome.grid_rows, welcome.grid_cells))
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    await worker.run()
    return 0


class Worker:
    def __init__(self, channel: Channel, welcome: Welcome, grid: Grid) -> None:
        row = welcome.worker - 1
        self._channel = channel
        self._log_format = welcome.log_format
        self._emit = emit = EventsToControl(channel).emit
        self._reactor = Reactor(emit)
        router = Router(grid, row, self._drained, emit)
        backends = BackendConnections(self._reactor)
        self._context = Context(self._reactor, router, backends, channel.post, emit)
        # Neither has a clock of its own: nothing wakes a worker that has nothing to do.
        self._flush = _Chore(self._reactor, lambda: self._context.access.flush())
        self._sweep = _Chore(self._reactor, self._sweep_backends)
        errors = _Chore(self._reactor, self._context.errors.settle)
        self._context.errors.on_first = lambda: errors.plan(REPORT_S)
        backends.on_first_idle = lambda: self._sweep.plan(SWEEP_S)
        self._turns = Recent(LONGEST_WITHIN_S)
        self._batches = Recent(LONGEST_WITHIN_S)
        self._acceptor = Acceptor(self._reactor, grid, row, emit)
        self._lanes = Lanes(self._context, self._acceptor)
        self._acceptor.open = self._lanes.open
        self._acceptor.open_admitted = self._lanes.open_admitted
        self._acceptor.note = router.tally.note
        self._connections = ConnectionList(self._lanes, self._acceptor)
        self._giver = Giver(self._lanes, channel.post)
        self._taker = Taker(self._lanes)
        self._access: tuple[str, str] = ("off", "-")
        self._log_file: tuple[str, int] | None = None  # of a table that is about to come
        self._copies = LineCopies()  # of the access log

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._channel.run_writer)
            nursery.start_soon(self._reactor.run)
            nursery.start_soon(self._context.router.run_drains)
            async with trio.open_nursery() as clients:
                clients.start_soon(self._lanes.run)
                await self._follow(clients)
            self._context.failures.settle()
            with trio.move_on_after(LAST_WORDS_S):
                await self._channel.wait_sent()
            nursery.cancel_scope.cancel()
        self._acceptor.close()
        self._context.close_backends()
        self._context.access.close(CLOSE_LOG_S)
        self._copies.close()

    async def _follow(self, clients: trio.Nursery) -> None:
        """Do what control says until it says stop, or is gone: then there is no work without it."""
        stopped = False
        while (message := await self._channel.receive()) is not None:
            match message:
                case Publish():
                    if self._apply(message):
                        if self._acceptor.closing:
                            clients.start_soon(self._say_applied, message.table.epoch)
                        else:
                            self._channel.post(Applied(message.table.epoch))
                case Certificates():
                    await self._load(message)
                case Stop(grace_s):
                    # Beside each other: the last ones are accepted while what is in hand begins its grace.
                    clients.cancel_scope.deadline = trio.current_time() + grace_s
                    self._acceptor.leave_all()
                    self._giver.stop()
                    self._lanes.stop(grace_s)
                    stopped = True
                case GiveAway():
                    clients.start_soon(self._give_away, message, clients)
                case Released(number, is_taken):
                    self._giver.released(number, is_taken=is_taken)
                case Take(number, moved):
                    why = self._taker.take(moved, self._channel.take_fds(moved.descriptors))
                    self._channel.post(Taken(number, why))
                case LogFile(path):
                    self._take_log_file(path, *self._channel.take_fds(1))
                case CopyAccess(follow):
                    (fd,) = self._channel.take_fds(1)
                    self._copies.add(socket.socket(fileno=fd), follow=follow)
                case AskStats(ask):
                    self._channel.post(self._stats(ask))
                case AskConnections():
                    clients.start_soon(self._list_connections, message)
                case CloseConnection(ask, number, stream):
                    self._close_connection(ask, number, stream)
            if stopped and not self._giver.under_way:
                return
        clients.cancel_scope.cancel()

    async def _give_away(self, message: GiveAway, clients: trio.Nursery) -> None:
        """Ends the worker when its last connection has gone, or the time is over."""
        self._acceptor.stop_listening()
        self._giver.look()
        clients.start_soon(self._giver.run)
        await self._acceptor.wait_closed()
        self._giver.look()  # who came meanwhile
        await self._giver.wait_settled()
        lanes = self._lanes
        self._channel.post(GaveAway(lanes.connections))
        if message.tunnels_s:
            lanes.stop(message.grace_s, LONG_LIVED)
            with trio.move_on_after(message.tunnels_s):
                await lanes.done.wait()
        lanes.stop(message.grace_s)
        with trio.move_on_after(message.grace_s):
            await lanes.done.wait()
        clients.cancel_scope.cancel()

    async def _load(self, message: Certificates) -> None:
        """Loads in a thread, for milliseconds. The next message waits, because it may be the listener's table."""
        pairs, why = message.pairs, ""
        fds = self._channel.take_fds(2 * len(pairs) + message.has_client_ca)
        client_ca = fds[-1] if message.has_client_ca else None
        try:
            found = [Pair(fds[2 * at], fds[2 * at + 1], pair.names) for at, pair in enumerate(pairs)]
            contexts = await trio.to_thread.run_sync(ServerContexts, found, client_ca)
        except BadCertificate as exc:
            why = str(exc)
        else:
            self._acceptor.use_certificates(message.listener, contexts)
        finally:
            for fd in fds:
                os.close(fd)
        self._channel.post(CertificatesLoaded(message.serial, why))

    async def _list_connections(self, ask: AskConnections) -> None:
        """A mistake of ours here costs the list, not the connections."""
        try:
            await self._connections.answer(ask, self._channel.post)
        except Exception:
            self._emit(Notice(f"connections cannot be listed: {traceback.format_exc(limit=-4).strip()}"))

    def _close_connection(self, ask: int, number: int, stream: int) -> None:
        try:
            self._channel.post(Closed(ask, self._connections.close(number, stream)))
        except Exception:
            self._emit(Notice(f"a connection cannot be closed: {traceback.format_exc(limit=-4).strip()}"))

    async def _say_applied(self, epoch: int) -> None:
        """When nobody is left in the listeners that have gone: control closes its sockets of them then."""
        await self._acceptor.wait_closed()
        self._channel.post(Applied(epoch))

    def _apply(self, message: Publish) -> bool:
        fds = self._channel.take_fds(len(message.sockets))
        sockets = {key: socket.socket(fileno=fd) for key, fd in zip(message.sockets, fds, strict=True)}
        table = message.table
        before = self._context.router.table.listeners
        if not self._context.router.apply(table):
            for sock in sockets.values():
                sock.close()
            return False
        self._use_access_log(table.access, table.access_path)
        self._context.backends.share(backend for pool in table.pools for backend in pool.every)
        self._sweep.plan(SWEEP_S)  # it may keep connections for less long
        self._acceptor.apply(table, sockets)
        if table.listeners != before:
            self._lanes.refresh(table.listeners)
        return True

    def _drained(self, backend: BackendView) -> None:
        self._context.forget_backend(backend)
        self._channel.post(Drained(str(backend.id), self._context.router.table.epoch))

    def _use_access_log(self, format: str, path: str) -> None:
        if self._access == (format, path):
            return
        self._access = (format, path)
        self._context.access.close(0)
        given, self._log_file = self._log_file, None
        sink = None
        if given is not None and given[0] == path and format != "off":
            sink = Sink(given[1], owned=True, copies=self._copies)
        elif given is not None:
            os.close(given[1])
        if path == "-" and format != "off":
            sink = Sink(1, copies=self._copies)
        if path == "-" and format != "off" and self._log_format == "json" and is_same_file(1, 2):
            format = "event"  # a stream of JSON events stays one
        self._context.access = AccessLog(
            sink,
            format,
            lambda lines: self._emit(LogDropped(lines, "access")),
            lambda: self._flush.plan(FLUSH_S),
        )

    def _take_log_file(self, path: str, fd: int) -> None:
        format, used = self._access
        if path == used and self._context.access.is_on:
            self._context.access.go_on_with(fd)
            return
        if self._log_file is not None:
            os.close(self._log_file[1])
        self._log_file = path, fd
        if path == used:  # it could not be opened before
            self._access = ("off", "-")
            self._use_access_log(format, path)

    def _sweep_backends(self) -> None:
        pools = self._context.router.table.pools
        again_s = self._context.backends.sweep({pool.name: pool.timeouts.keepalive_s for pool in pools})
        if again_s is not None:
            self._sweep.plan(again_s)

    def _stats(self, ask: int) -> Stats:
        self._context.failures.settle()
        self._lanes.pipes.sweep(trio.current_time())
        lanes, router, reactor, now = self._lanes, self._context.router, self._reactor, trio.current_time()
        self._turns.add(now, reactor.longest_turn_s)
        self._batches.add(now, reactor.longest_batch_s)
        reactor.longest_turn_s = reactor.longest_batch_s = 0.0
        return Stats(
            ask,
            lanes.connections,
            router.tally.served,
            dict(lanes.handed_over),
            self._turns.largest(now),
            self._batches.largest(now),
            lanes.phases(),
            {pool: len(queue) for pool, queue in router.queues.items()},
            lanes.http2_streams(),
            router.take_counts(),
        )


class _Chore:
    """Done on the reactor when it is planned for, or a tick later: once, at the soonest time that was asked for."""

    def __init__(self, reactor: Reactor, do: Callable[[], None]) -> None:
        self.deadline = self.queued_at = NEVER
        self._reactor = reactor
        self.on_deadline = do

    def plan(self, in_s: float) -> None:
        at = self._reactor.now + in_s
        if at < self.deadline:
            self._reactor.arm_at(self, at)
