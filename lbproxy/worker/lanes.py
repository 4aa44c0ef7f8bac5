"""The two lanes of a worker, and the ways between them (DESIGN.md 4).

Every client connection begins on the reactor, in the express lane. What is hard goes to a task, at one of two points:
nothing claimed yet, or the request wholly or partly sent. When the exchange is over and the connection can be kept, it
comes back. An HTTP/2 connection stays on the reactor, and each of its streams has a task. Knows who is where; knows no
HTTP.
"""

import os
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import TypeVar

import trio

from lbproxy.model import LeaseKind, ListenerView
from lbproxy.wire.head import Lines, Refused
from lbproxy.wire.head_cache import HeadCache
from lbproxy.wire.head_template import HeadTemplates, RequestTemplate, ResponseTemplate
from lbproxy.wire.headers import ClientFacts, hsts_line
from lbproxy.wire.http2.encoder import EncodedLines
from lbproxy.wire.http2.request import CheckedFields
from lbproxy.worker.context import Context
from lbproxy.worker.express.client import ExpressClient
from lbproxy.worker.front.accept import Acceptor
from lbproxy.worker.front.admission import ClientConnection
from lbproxy.worker.handover import LAST_REQUEST_S, Handover, Upgrade
from lbproxy.worker.http2.client import Http2Client
from lbproxy.worker.http2.departure import stop_all
from lbproxy.worker.http2.read_head import StreamHeads
from lbproxy.worker.http2.stream import StreamClient
from lbproxy.worker.io.splice import Pipes
from lbproxy.worker.io.stream import SocketStream
from lbproxy.worker.relay.tcp import TcpClient
from lbproxy.worker.relay.upgrade import UpgradedClient
from lbproxy.worker.task.client import Client
from lbproxy.worker.task.conversation import answer_refused, converse, linger, refuse, serve_stream

OFF_VARIABLE = "LBPROXY_EXPRESS"  # =off: for tests, everything takes the task lane


Record = ExpressClient | Http2Client | TcpClient | UpgradedClient
Made = TypeVar("Made", bound=ExpressClient | Http2Client | TcpClient)


class Lanes:
    """`acceptor` counts the connections."""

    def __init__(self, context: Context, acceptor: Acceptor) -> None:
        self.context = context
        self.reactor = context.reactor
        self.router = context.router
        self.backends = context.backends
        # Not the task lane's: a head that is handed over would be read twice with one memory, and what comes twice in a
        # row is remembered. A key of a WebSocket never comes again.
        self.lines = Lines()
        self.head_cache = HeadCache()
        self.request_templates = HeadTemplates(RequestTemplate)
        self._response_templates: dict[str, HeadTemplates[ResponseTemplate]] = {}
        self.checked_fields = CheckedFields()
        self.pipes = Pipes()
        self.encoded_lines = EncodedLines()
        self.stream_heads = StreamHeads(self.encoded_lines)
        self.off = os.environ.get(OFF_VARIABLE) == "off"
        self.stopping = False
        self.going = False  # it stops, or gives its connections away
        self.on_offer: Callable[[Record], None] = _nobody
        self.lifted: set[Record] = set()  # on their way to another worker: they are counted here until they are there
        self.done = trio.Event()
        self.handed_over: dict[str, int] = {}
        self._acceptor = acceptor
        self._records: set[Record] = set()
        self._in_tasks: dict[ExpressClient, Client] = {}
        self._counted: dict[Record, tuple[int, ...]] = {}  # connections that count for their clients, and where
        self._emptied = trio.Event()
        self._nursery: trio.Nursery | None = None

    def response_templates(self, pool: str) -> HeadTemplates[ResponseTemplate]:
        templates = self._response_templates.get(pool)
        if templates is None:
            templates = self._response_templates[pool] = HeadTemplates(ResponseTemplate)
        return templates

    @property
    def connections(self) -> int:
        return len(self._records)

    @property
    def records(self) -> Sequence[Record]:
        """Every open connection that is in a lane, as of now."""
        return tuple(self._records - self.lifted if self.lifted else self._records)

    def client_of(self, record: Record) -> Client | None:
        """The client's side in the task lane; None: it is not there."""
        return self._in_tasks.get(record) if isinstance(record, ExpressClient) else None

    def phases(self) -> dict[str, int]:
        """How many connections of the express lane are in which phase; "away": in the task lane."""
        return dict(Counter(record.phase.name for record in self._records if isinstance(record, ExpressClient)))

    def http2_streams(self) -> dict[str, int]:
        """How many streams are open, by listener."""
        streams: Counter[str] = Counter()
        for record in self._records:
            if isinstance(record, Http2Client):
                streams[record.view.settings.name] += len(record.streams)
        return dict(streams)

    async def run(self) -> None:
        """Home of the task lane. Ends when it is stopped, nobody comes and every client is gone, or is cancelled."""
        async with trio.open_nursery() as self._nursery:
            await self.context.stopping.wait()
            await self._acceptor.wait_left()
            if self._records:
                await self._emptied.wait()
        self.done.set()

    def stop(self, grace_s: float, spared: Collection[LeaseKind] = ()) -> None:
        """What is in hand has its grace, each kind its own, within `grace_s`. Who is idle goes when it has been silent
        for LAST_REQUEST_S: who has just come, or just got an answer, may be about to ask. `spared`: see Router.stop."""
        self.stopping = self.going = True
        self.router.stop(grace_s, spared)
        self.context.stopping.set()
        for record in list(self._records):
            if isinstance(record, ExpressClient):  # nobody can tell what a relay that says nothing is waiting for
                record.stop()
        stop_all([record for record in self._records if isinstance(record, Http2Client)], grace_s)
        silent_until = trio.current_time() + LAST_REQUEST_S
        for client in self._in_tasks.values():
            if client.idle_scope is not None:
                client.idle_scope.deadline = min(client.idle_scope.deadline, silent_until)

    def open(self, sock: socket.socket, view: ListenerView, facts: ClientFacts) -> None:
        """A new client. The socket is ours from now on."""
        self._acceptor.opened(view)
        self._made(TcpClient if view.settings.mode == "tcp" else ExpressClient, sock, view, facts).begin()

    def open_admitted(self, connection: ClientConnection) -> None:
        """Same as `open`, for a client that came through the front door, where it has been counted."""
        view = connection.view
        make: type[ExpressClient | Http2Client | TcpClient] = ExpressClient
        if view.settings.mode == "tcp":
            make = TcpClient
        elif connection.protocol != "http/1.1":
            make = Http2Client
        record = self._made(make, connection.sock, view, connection.facts, connection.early)
        if isinstance(record, TcpClient):
            record.server_name = connection.server_name
            if connection.events:
                self.reactor.unregister(connection.sock.fileno())
        else:
            record.client_events = connection.events
        record.begin()
        if isinstance(record, Http2Client) and self.stopping:
            record.stop()
        self.offer(record)

    def _made(
        self, make: type[Made], sock: socket.socket, view: ListenerView, facts: ClientFacts, early: bytes = b""
    ) -> Made:
        record = make(self, sock, view, facts, early)
        if view.settings.hsts_s is not None or self.stopping:
            self._add_lines(record)
        self._records.add(record)
        if facts.counted:
            self._counted[record] = facts.counted
        return record

    # Between workers

    def offer(self, record: Record) -> None:
        """The connection may be moved now: it has become idle, or a relay."""
        if self.going:
            self.on_offer(record)

    def has(self, record: Record) -> bool:
        """Whether the connection is open, and not on its way to another worker."""
        return record in self._records and record not in self.lifted

    def facts_of(self, view: ListenerView, ip: str, port: int) -> ClientFacts:
        """The facts of a client that another worker has accepted. Raises LookupError, ValueError."""
        return self._acceptor.facts_of(view, ip, port)

    def adopt(self, record: Record, facts: ClientFacts) -> None:
        """A connection that another worker had. It was accepted there."""
        self._records.add(record)
        if counted := self._acceptor.adopted(record.view, facts):
            self._counted[record] = counted

    def _add_lines(self, record: Record) -> None:
        """Answers of this connection have lines that the remembered ones have not, or say that it ends."""
        if isinstance(record, ExpressClient):
            hsts_s = record.view.settings.hsts_s
            usual = b"" if self.stopping else None
            record.added = usual if hsts_s is None else hsts_line(hsts_s)

    def refresh(self, listeners: Sequence[ListenerView]) -> None:
        """A new table: what its listeners say holds for the connections that are open, too."""
        views = {view.key: view for view in listeners}
        for record in self._records:
            record.view = views.get(record.view.key, record.view)
            self._add_lines(record)
            if isinstance(record, ExpressClient):
                record.forget_head()
            elif isinstance(record, Http2Client) and not (record.view.key in views and record.is_wanted):
                record.stop()
        for client in self._in_tasks.values():
            client.listener = views.get(client.listener.key, client.listener)

    def closed(self, record: Record) -> None:
        self._records.discard(record)
        self._acceptor.closed(record.view)
        if self._counted:
            self._acceptor.clients.left(self._counted.pop(record, ()))
        if self.stopping and not self._records and not self._acceptor.leaving:
            self._emptied.set()

    def serve_stream(
        self, connection: Http2Client, stream: StreamClient, raw: bytes, refused: Refused | None = None
    ) -> None:
        """A request has come on a stream. `raw`: its head, spelt as one of HTTP/1.1. `refused`: its only answer."""
        serve: Callable[[], Awaitable[object]] = partial(serve_stream, self.context, stream, raw)
        if refused is not None:
            serve = partial(answer_refused, self.context, stream, refused, raw)
        self.spawn(partial(self._run_stream, connection, stream, serve))

    def go_on_with_stream(self, connection: Http2Client, stream: StreamClient, raw: bytes, handover: Handover) -> None:
        """Same as `serve_stream`, for a stream that comes from the express lane."""
        self.handed_over[handover.why] = self.handed_over.get(handover.why, 0) + 1
        serve = partial(serve_stream, self.context, stream, raw, handover)
        self.spawn(partial(self._run_stream, connection, stream, serve))

    async def _run_stream(
        self, connection: Http2Client, stream: StreamClient, serve: Callable[[], Awaitable[object]]
    ) -> None:
        try:
            await serve()
        finally:
            away, stream.away = stream.away, None
            if away is not None:
                UpgradedClient(self, connection.view, away).begin(away)
            else:
                connection.finished(stream)

    # To the task lane

    def hand_over(self, record: ExpressClient, handover: Handover) -> None:
        self.handed_over[handover.why] = self.handed_over.get(handover.why, 0) + 1
        client = self._client(record)
        client.buffer += handover.data
        if handover.refused is None:
            self._spawn(record, client, partial(converse, self.context, client, handover, stay=self.off))
        else:
            self._spawn(record, client, partial(refuse, self.context, client, handover.refused, client.buffer))

    def linger(self, record: ExpressClient) -> None:
        """The answer is sent and the connection ends, but the client has said more than it may."""
        record.leave()
        client = self._client(record)
        self._spawn(record, client, partial(linger, client))

    def _client(self, record: ExpressClient) -> Client:
        client = Client(SocketStream(record.sock), record.view, record.facts)
        client.has_risked = record.has_risked
        return client

    def spawn(self, task: Callable[[], Awaitable[None]]) -> None:
        assert self._nursery is not None
        self._nursery.start_soon(self._attended, task)

    async def _attended(self, task: Callable[[], Awaitable[None]]) -> None:
        """While it runs, the reactor does not linger."""
        self.reactor.tasks += 1
        try:
            await task()
        finally:
            self.reactor.tasks -= 1

    def _spawn(self, record: ExpressClient, client: Client, serve: Callable[[], Awaitable[bool]]) -> None:
        self._in_tasks[record] = client
        self.spawn(partial(self._run_task, record, client, serve))

    async def _run_task(self, record: ExpressClient, client: Client, serve: Callable[[], Awaitable[bool]]) -> None:
        kept = False
        try:
            kept = await serve()
        finally:
            self._in_tasks.pop(record, None)
            away, client.away = client.away, None
            if away is not None:
                self._relay(record, away)
            elif kept and not client.is_unwanted:
                record.buffer = bytes(client.buffer)
                record.has_risked = client.has_risked
                record.begin()
                self.offer(record)
            else:
                client.stream.close()
                self.closed(record)

    def _relay(self, record: ExpressClient, upgrade: Upgrade) -> None:
        """A client that speaks another protocol now does not come back: its record makes room for a smaller one."""
        upgraded = UpgradedClient(self, record.view, upgrade)
        self._records.remove(record)
        self._records.add(upgraded)
        if record in self._counted:
            self._counted[upgraded] = self._counted.pop(record)
        upgraded.begin(upgrade)
        self.offer(upgraded)


def _nobody(record: Record) -> None:
    """Nothing is given away."""
