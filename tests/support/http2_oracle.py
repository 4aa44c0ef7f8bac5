"""python-hyper's h2 as the oracle of our connection: what ours accepts, h2 sees as the same events, in both roles.

A conversation is compared frame by frame, until ours refuses something: h2 then ends the whole connection where ours
resets a stream. What our heads refuse (request.py, backend_heads.py) counts as refused.
"""

from typing import Any

import h2.config
import h2.connection
import h2.events

from lbproxy.wire.head import Lines, Refused, read_request
from lbproxy.wire.http2 import frames
from lbproxy.wire.http2.backend_heads import response_head
from lbproxy.wire.http2.connection import Http2Connection
from lbproxy.wire.http2.errors import PROTOCOL_ERROR, ConnectionFailed, MalformedMessage, StreamFailed
from lbproxy.wire.http2.hpack import Fields
from lbproxy.wire.http2.peer_settings import LocalSettings
from lbproxy.wire.http2.request import spell_request, trailers_of
from support.http2_pair import Recorder, block
from support.http2_scripts import Step

SETTINGS = LocalSettings(connection_window_bytes=65535, header_list_bytes=65536)
OK = [(b":status", b"200")]
ASK = [(b":method", b"POST"), (b":scheme", b"https"), (b":authority", b"a.example"), (b":path", b"/")]
CREDITS = b"x" * 10


class Judge(Recorder):
    """An owner that looks at heads as lbproxy does."""

    def __init__(self, *, client: bool) -> None:
        super().__init__()
        self.connection: Http2Connection | None = None
        self._client = client
        self._lines = Lines()

    def on_head(self, stream_id: int, fields: Fields, end: bool) -> None:
        try:
            if self._client:
                head = response_head(fields, self._lines)
                length = 0 if head.status in (204, 304) else head.length
            else:
                length = read_request(spell_request(fields, end=end), self._lines, 100).length
                if len({value for name, value in fields if name in (b":authority", b"host")}) > 1:
                    raise MalformedMessage("a host that differs in case alone: the oracle compares bytes")
            if end and length:
                raise MalformedMessage("a length, and no body")
        except (MalformedMessage, Refused) as problem:
            raise StreamFailed(stream_id, PROTOCOL_ERROR, str(problem)) from None
        assert self.connection is not None
        if length is not None and not end:
            self.connection.expect(stream_id, length)
        self.told.append(("head", stream_id, fields, end))

    def on_trailers(self, stream_id: int, fields: Fields) -> None:
        try:
            trailers_of(fields)
            if any(name == b"content-length" for name, _ in fields):
                raise MalformedMessage("which ours leaves out, and the oracle reads")
        except MalformedMessage as problem:
            raise StreamFailed(stream_id, PROTOCOL_ERROR, str(problem)) from None
        self.told.append(("trailers", stream_id, fields))


def ours(*, client: bool) -> tuple[Http2Connection, Judge]:
    owner = Judge(client=client)
    connection = owner.connection = Http2Connection(owner, SETTINGS, client=client)
    connection.begin()
    if client:
        for _ in range(3):
            connection.send_head(connection.open_stream(), block(*ASK))
        connection.send_data(5, b"", end=True)
    connection.feed((b"" if client else frames.PREFACE) + frames.settings([]), 0.0)
    connection.take()
    owner.told.clear()
    return connection, owner


def theirs(*, client: bool) -> h2.connection.H2Connection:
    config = h2.config.H2Configuration(client_side=client, header_encoding=None, normalize_inbound_headers=False)
    made = h2.connection.H2Connection(config)
    made.initiate_connection()
    if client:
        for stream_id in (1, 3, 5):
            made.send_headers(stream_id, ASK, end_stream=stream_id == 5)
    made.receive_data((b"" if client else frames.PREFACE) + frames.settings([]))
    return made


def our_events(told: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    events: list[tuple[Any, ...]] = []
    for name, *arguments in told:
        if name in ("head", "data"):
            *facts, end = arguments
            events += [(name, *facts), *([("end", facts[0])] if end else [])]
        elif name == "trailers":
            events += [(name, *arguments), ("end", arguments[0])]
        else:
            events.append((name, *arguments))
    return events


def their_events(seen: list[h2.events.Event]) -> list[tuple[Any, ...]]:
    events: list[tuple[Any, ...]] = []
    for event in seen:
        match event:
            case h2.events.RequestReceived() | h2.events.ResponseReceived() | h2.events.InformationalResponseReceived():
                events.append(("head", event.stream_id, tuple(map(tuple, event.headers))))
            case h2.events.TrailersReceived():
                events.append(("trailers", event.stream_id, tuple(map(tuple, event.headers))))
            case h2.events.DataReceived():
                events.append(("data", event.stream_id, event.data, event.flow_controlled_length))
            case h2.events.StreamEnded():
                events.append(("end", event.stream_id))
            case h2.events.StreamReset():
                events.append(("reset", event.stream_id, int(event.error_code)))
            case h2.events.PingAckReceived():
                events.append(("ping_ack", event.ping_data))
            case h2.events.RemoteSettingsChanged():
                events.append(("settings",))
            case h2.events.ConnectionTerminated():
                last_id = event.last_stream_id & frames.LARGEST_ID
                events.append(("goaway", last_id, int(event.error_code), event.additional_data or b""))
    return events


def answer(stream_id: int, connection: Http2Connection, oracle: h2.connection.H2Connection) -> None:
    """The other side answers a stream that is there; a body if the windows let it."""
    stream = connection.streams.get(stream_id)
    if stream is None or stream.local_ended:
        return
    body = CREDITS[: max(0, min(oracle.local_flow_control_window(stream_id), len(CREDITS)))]
    connection.send_head(stream_id, block(*OK))
    connection.send_data(stream_id, body, end=True)
    oracle.send_headers(stream_id, OK)
    oracle.send_data(stream_id, body, end_stream=True)


def is_beyond_the_oracle(raw: bytes) -> bool:
    """What hyperframe refuses and RFC 9113 allows: HEADERS of nothing but padding (6.2), a reserved bit (6.9).

    An update by 0 of a stream that is gone: there is nothing left to reset. ALTSVC, a type that ours does not know.
    """
    if raw[3] == frames.HEADERS and raw[4] & frames.PADDED:
        priority = 5 if raw[4] & frames.HAS_PRIORITY else 0
        return raw[9] == len(raw) - 10 - priority > 0
    if raw[3] == 10:
        return True
    return raw[3] == frames.WINDOW_UPDATE and (raw[9] >= 0x80 or raw[9:] == bytes(4))


def compare(steps: list[Step], *, client: bool) -> bool:
    """Whether everything was accepted."""
    connection, owner = ours(client=client)
    oracle = theirs(client=client)
    for step in steps:
        if isinstance(step, int):
            answer(step, connection, oracle)
            continue
        try:
            connection.feed(step, 0.0)
        except ConnectionFailed:
            return False
        if owner.of("failed", "large_head") or is_beyond_the_oracle(step):
            return False
        left = [call for call in owner.told if call[0] == "goaway"]
        seen = oracle.receive_data(step)  # whatever it raises, ours should have refused
        told = our_events(owner.told)
        if left:  # the streams that a backend never saw are a conclusion of ours
            assert their_events(seen) == told[:1]
            return True
        assert their_events(seen) == told
        owner.told.clear()
    for stream in connection.streams.values():
        assert stream.send_bytes == oracle.local_flow_control_window(stream.id) or stream.send_bytes > (
            connection.output.window_bytes
        )
    assert connection.output.window_bytes == oracle.outbound_flow_control_window
    return True


def told_at_cuts(steps: list[Step], cuts: list[int], *, client: bool) -> tuple[list[tuple[Any, ...]], bytes]:
    """What ours makes of the same bytes in these pieces, and what it answers."""
    connection, owner = ours(client=client)
    raw = b"".join(step for step in steps if isinstance(step, bytes))
    try:
        for begin, end in zip([0, *cuts], [*cuts, len(raw)], strict=True):
            connection.feed(raw[begin:end], 0.0)
            while connection.is_paused:
                connection.feed(b"", 0.0)
    except ConnectionFailed as failed:
        owner.told.append(("connection_failed", failed.code, failed.reason))
    told = [(name, str(facts[0])) if name == "failed" else (name, *facts) for name, *facts in owner.told]
    return told, connection.take()
