"""A backend that speaks HTTP/2, on a stream that the test plays: what each end means to an exchange."""

from contextlib import nullcontext
from typing import Any

import pytest
import trio
from support.memory import GET, Bench
from support.trio_test import trio_test

from lbproxy.errors import LbproxyError, ProxyError
from lbproxy.wire.head import Refused, read_request
from lbproxy.wire.http2.encoder import EncodedLines
from lbproxy.worker.backends.http2_stream import BackendStream
from lbproxy.worker.backends.stream_owner import Loss
from lbproxy.worker.io.stream import StreamBroken, StreamStalled
from lbproxy.worker.task.backend_side import Asked
from lbproxy.worker.task.http2_backend import Http2Backend
from lbproxy.worker.task.response_heads import NoAnswer

virtual = trio_test(clock="autojump", timeout_s=1000)
HEAD = ((b":status", b"200"), (b"content-length", b"5"))


class FakeConnection:
    def __init__(self, bench: Bench) -> None:
        self.backend = bench.view
        self.is_congested = False
        self.queued = 0
        self.put_: list[tuple[bytes, bool]] = []

    def begin_stream(self, owner: object, block: bytes, *, end: bool) -> int:
        self.put_.append((b"head", end))
        return 1

    def put(self, stream_id: int, data: bytes, *, end: bool = False) -> None:
        self.put_.append((data, end))

    def put_trailers(self, stream_id: int, block: bytes) -> None:
        self.put_.append((b"trailers", True))

    def pending(self, stream_id: int) -> int:
        return self.queued

    def credit(self, stream_id: int, size: int) -> None: ...
    def leave(self, stream_id: int) -> None: ...


class Trial:
    def __init__(self, *, reused: bool = False, method: bytes = b"GET", replayable: bool = True) -> None:
        self.bench = Bench()
        self.connection = FakeConnection(self.bench)
        fake: Any = self.connection
        self.stream = BackendStream(fake, reused=reused)
        lines = self.bench.context.lines
        self.side = Http2Backend(self.stream, method, EncodedLines(), lines, lambda: replayable)
        self.asked = Asked(read_request(GET, lines, 100), self.bench.talk(), b"id", ())
        self.side.put_request(self.asked, b"", end=False)

    async def failed(self) -> LbproxyError:
        with pytest.raises(LbproxyError) as caught:
            await self.side.next_head()
        return caught.value


@pytest.mark.parametrize(
    ("payload", "end", "put"),
    [
        (b"", True, [(b"head", True)]),
        (b"abc", True, [(b"head", False), (b"abc", True)]),
        (b"abc", False, [(b"head", False), (b"abc", False)]),
    ],
)
@virtual
async def test_the_end_goes_with_the_last_frame_there_is(payload: bytes, end: bool, put: list[object]) -> None:
    trial = Trial()
    trial.connection.put_.clear()
    trial.side.put_request(trial.asked, payload, end=end)
    assert trial.connection.put_ == put
    trial.side.put_end(())
    trial.side.put_end((b"X-T: 1",))
    assert trial.connection.put_[len(put) :] == [(b"", True), (b"trailers", True)]
    trial.bench.close()


@pytest.mark.parametrize(
    ("loss", "reused", "replayable", "told"),
    [
        (Loss("refused", is_unread=True), True, False, (False, False)),  # counts as an attempt, and goes elsewhere
        (Loss("goaway", is_unread=True, is_accident=True), True, False, (True, False)),
        (Loss("died", is_accident=True), True, True, (True, True)),
        (Loss("died", is_accident=True), True, False, (False, True)),  # a 502; the client's connection stays
        (Loss("died", is_accident=True), False, True, (False, True)),
        (Loss("reset"), True, True, (False, True)),
    ],
)
@virtual
async def test_a_stream_that_ends_without_a_head_is_no_answer(
    loss: Loss, reused: bool, replayable: bool, told: tuple[bool, bool]
) -> None:
    trial = Trial(reused=reused, replayable=replayable)
    trial.stream.on_lost(loss)
    failure = await trial.failed()
    assert isinstance(failure, NoAnswer)
    assert (failure.reused, failure.was_sent) == told
    assert not trial.side.takes
    trial.bench.close()


@virtual
async def test_after_an_interim_head_or_a_silence_it_is_an_error() -> None:
    trial = Trial()
    trial.stream.on_head(((b":status", b"103"),), False)
    assert (await trial.side.next_head()).status == 103
    trial.stream.on_lost(Loss("reset"))
    failure = await trial.failed()
    assert isinstance(failure, ProxyError)
    assert failure.status == 502
    trial.bench.close()
    trial = Trial()
    trial.stream.on_lost(Loss("no PONG", status=504, token="connection_read_timeout"))
    failure = await trial.failed()
    assert isinstance(failure, ProxyError)
    assert (failure.status, failure.token) == (504, "connection_read_timeout")
    trial.bench.close()


@pytest.mark.parametrize(
    ("method", "pieces", "wrong"),
    [
        (b"GET", (b"he", b"llo"), ""),
        (b"GET", (b"hell",), "shorter than its Content-Length"),
        (b"GET", (b"hello!",), "longer than its Content-Length"),
        (b"HEAD", (), ""),
        (b"HEAD", (b"x",), "a body where none may be"),
    ],
)
@virtual
async def test_a_body_is_as_long_as_it_was_announced(method: bytes, pieces: tuple[bytes, ...], wrong: str) -> None:
    trial = Trial(method=method)
    trial.stream.on_head(HEAD, False)
    body = trial.side.body(await trial.side.next_head())
    got = b""
    with pytest.raises(Refused, match=wrong) if wrong else nullcontext():
        for piece in pieces:
            trial.stream.on_data(piece, len(piece), False)
            got += body.feed(await trial.side.receive(65536))
        assert not body.done
        trial.stream.on_data(b"", 0, True)
        assert await trial.side.receive(65536) == b""
        body.eof()
    if not wrong:
        assert body.done
        assert got == b"".join(pieces)
    trial.bench.close()


@virtual
async def test_trailers_end_a_body_and_those_alone_are_an_answer() -> None:
    trial = Trial()
    trial.stream.on_head(((b":status", b"200"), (b"grpc-status", b"5")), True)
    body = trial.side.body(await trial.side.next_head())
    assert body.done
    trial.bench.close()
    trial = Trial()
    trial.stream.on_head(((b":status", b"200"),), False)
    body = trial.side.body(await trial.side.next_head())
    trial.stream.on_data(b"x", 1, False)
    trial.stream.on_trailers(((b"grpc-status", b"0"), (b"host", b"evil")))
    assert body.feed(trial.side.take_received()) == b"x"
    assert body.done
    assert body.trailers == [b"grpc-status: 0"]
    trial.bench.close()


@virtual
async def test_a_body_that_breaks_off_never_looks_complete() -> None:
    trial = Trial()
    trial.stream.on_head(((b":status", b"200"),), False)
    body = trial.side.body(await trial.side.next_head())
    trial.stream.on_data(b"x", 1, False)
    trial.stream.on_lost(Loss("reset"))
    assert body.feed(await trial.side.receive(65536)) == b"x"
    with pytest.raises(StreamBroken):
        await trial.side.receive(65536)
    assert not body.done
    trial.bench.close()


@virtual
async def test_flushing_waits_as_long_as_anything_moves() -> None:
    trial = Trial()
    trial.connection.queued = 3

    async def moves() -> None:
        for _ in range(3):
            await trio.sleep(0.9)
            trial.connection.queued -= 1
            trial.stream.on_writable()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(moves)
        await trial.side.flush(1.0)
    trial.connection.queued = 1
    with pytest.raises(StreamStalled):
        await trial.side.flush(1.0)
    trial.bench.close()
