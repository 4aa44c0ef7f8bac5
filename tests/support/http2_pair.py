"""Our Http2Connection and python-hyper's h2, connected in memory; an owner that keeps what it is told."""

from typing import Any

import h2.config
import h2.connection
import h2.events

from lbproxy.wire.http2.connection import Http2Connection
from lbproxy.wire.http2.encoder import field
from lbproxy.wire.http2.peer_settings import LocalSettings

GET = [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a.example"), (b":path", b"/")]
POST = [(b":method", b"POST"), *GET[1:]]


def block(*fields: tuple[bytes, bytes]) -> bytes:
    return b"".join(field(name, value) for name, value in fields)


class Recorder:
    """An owner that keeps every call as a tuple: its name without `on_`, and the arguments."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("on_"):
            raise AttributeError(name)
        return lambda *arguments: self.told.append((name.removeprefix("on_"), *arguments))

    def of(self, *names: str) -> list[tuple[Any, ...]]:
        return [call for call in self.told if call[0] in names]


class Pair:
    """Ours in the role of a server, or of a client; h2 in the other."""

    def __init__(self, *, client: bool = False, settings: LocalSettings | None = None) -> None:
        self.owner = Recorder()
        self.ours = Http2Connection(self.owner, settings or LocalSettings(), client=client)
        self.ours.begin()
        self.theirs = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=not client, header_encoding=None)
        )
        self.theirs.initiate_connection()
        self.events: list[h2.events.Event] = []
        self.pump()
        self.owner.told.clear()
        self.events.clear()

    def pump(self) -> list[h2.events.Event]:
        """Until nothing is left to be said. Returns what h2 has seen."""
        fresh: list[h2.events.Event] = []
        while True:
            sent, answered = self.ours.take(), self.theirs.data_to_send()
            if not sent and not answered:
                self.events += fresh
                return fresh
            if sent:
                fresh += self.theirs.receive_data(sent)
            if answered:
                self.ours.feed(answered, 0.0)

    def ask(self, fields: list[tuple[bytes, bytes]] = GET, *, end: bool = True) -> int:
        """h2, as a client, sends a request."""
        stream_id = self.theirs.get_next_available_stream_id()
        self.theirs.send_headers(stream_id, fields, end_stream=end)
        self.pump()
        return stream_id

    def received(self, stream_id: int) -> bytes:
        """The data that h2 has seen of a stream."""
        data = [event for event in self.events if isinstance(event, h2.events.DataReceived)]
        return b"".join(event.data for event in data if event.stream_id == stream_id)
