"""gRPC calls from the client's frames to the backend's, over the whole stack of a worker; python-hyper's h2 at both
ends, so that every frame is seen."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import trio
from h2.errors import ErrorCodes
from support.http2 import Fields, Http2, connect2
from support.http2_backend import Asked, Script, speak
from support.peer import Peer
from support.proxy import Proxy, proxy, wait_until
from support.setup import Setup
from support.trio_test import trio_test

from lbproxy.settings import DrainSettings, PoolLimits
from lbproxy.wire.grpc import message

T = TypeVar("T")
CALL = (("content-type", "application/grpc"), ("te", "trailers"))
HEAD = ((b"content-type", b"application/grpc"),)
OK = (b"grpc-status", b"0")
ONE = message(b"one")


async def there(do: Callable[[], T]) -> T:
    """In a thread: the client's socket blocks."""
    return await trio.to_thread.run_sync(do)


@asynccontextmanager
async def calling(*scripts: Script, drain: DrainSettings | None = None) -> AsyncIterator[tuple[Proxy, Http2]]:
    setup = Setup(is_http2=True, drain=drain or DrainSettings())
    async with proxy("h2", *scripts, setup=setup) as lb:
        client = await there(lambda: connect2(lb.address.port))
        lb._clients.append(client)  # type: ignore[arg-type]
        yield lb, client


def call(client: Http2, body: bytes = ONE, *, end: bool = False, fields: Fields = ()) -> int:
    stream = client.request("POST", "/a.B/C", [*CALL, *fields], end=False)
    client.send(stream, body, end=end)
    return stream


def told(client: Http2, stream: int) -> dict[str, str]:
    """The trailers, which came once; or the head that was all there is."""
    answer = client.answer(stream)
    assert client.names(stream).count("HEADERS") == 1 + bool(answer.trailers)
    return dict(answer.trailers or answer.fields)


def echoing(heard: list[Asked]) -> Script:
    """A dialogue on each stream: what comes goes back, and an end is answered with one."""

    async def script(peer: Peer) -> None:
        h2 = await speak(peer)
        sent: dict[int, int] = {}

        async def answer(asked: Asked) -> None:
            if asked.id not in sent:
                heard.append(asked)
                sent[asked.id] = 0
                await h2.head(asked.id, *HEAD)
            news = bytes(asked.body[sent[asked.id] :])
            sent[asked.id] += len(news)
            if news:
                await h2.data(asked.id, news)
            if asked.ended:
                await h2.trailers(asked.id, OK)
                del h2.asked[asked.id]

        while True:
            await h2.more()
            for asked in list(h2.asked.values()):
                if asked.reset is None:
                    await answer(asked)

    return script


@trio_test(timeout_s=15)
async def test_a_drain_tells_the_silent_streams_first_and_each_of_them_once() -> None:
    heard: list[Asked] = []
    async with calling(echoing(heard), drain=DrainSettings(stream_s=1.2, goodbye_s=0.0)) as (lb, client):
        streams = [await there(lambda: call(client)) for _ in range(3)]
        for stream in streams:
            await there(lambda stream=stream: client.wait(lambda: client.answers[stream].body == ONE))  # type: ignore[misc]
        await wait_until(lambda: len(heard) == 3)
        for stream in (streams[2], streams[0], streams[1]):  # so the third has been silent for longest
            await trio.sleep(0.15)
            await there(lambda stream=stream: client.send(stream, ONE))  # type: ignore[misc]
            await there(lambda stream=stream: client.wait(lambda: client.answers[stream].body == ONE * 2))  # type: ignore[misc]
        lb.publish()
        for stream in streams:
            said = await there(lambda stream=stream: told(client, stream))  # type: ignore[misc]
            assert (said["grpc-status"], said["grpc-message"]) == ("14", "going away")
            assert 0 <= int(said["grpc-retry-pushback-ms"]) <= 1200
            assert client.answers[stream].body == ONE * 2
        ends = [frame.stream_id for frame in client.frames if "END_STREAM" in frame.flags]
        assert ends == [streams[2], streams[0], streams[1]]
        await wait_until(lambda: [one.reset for one in heard] == [ErrorCodes.CANCEL] * 3)
        await there(lambda: client.wait(lambda: client.names().count("RST_STREAM") == 3))
        assert {client.answers[stream].reset for stream in streams} == {ErrorCodes.NO_ERROR}
        assert [record.status for record in await lb.wait_records(3)] == [200] * 3


@trio_test(timeout_s=15)
async def test_a_unary_call_outlasts_the_grace_of_streams() -> None:
    go_on = trio.Event()

    async def script(peer: Peer) -> None:
        h2 = await speak(peer)
        asked = await h2.request()
        await go_on.wait()
        await h2.head(asked.id, *HEAD)
        await h2.data(asked.id, ONE)
        await h2.trailers(asked.id, OK)
        await h2.more()

    async with calling(script, drain=DrainSettings(stream_s=0.1, request_s=10.0)) as (lb, client):
        stream = await there(lambda: call(client, end=True))
        await wait_until(lambda: lb.leases == 1)
        lb.publish()
        await trio.sleep(0.5)
        go_on.set()
        assert (await there(lambda: told(client, stream)))["grpc-status"] == "0"
        assert client.answers[stream].body == ONE


@trio_test(timeout_s=15)
async def test_a_unary_call_that_outlasts_its_grace_is_told_goodbye_without_an_answer() -> None:
    async def silent(peer: Peer) -> None:
        h2 = await speak(peer)
        while True:
            await h2.more()

    async with calling(silent, drain=DrainSettings(request_s=0.2, transfer_s=0.2)) as (lb, client):
        stream = await there(lambda: call(client, end=True))
        await wait_until(lambda: lb.leases == 1)
        lb.publish()
        said = await there(lambda: told(client, stream))
        assert (said["grpc-status"], said["grpc-message"][:10]) == ("14", "going away")
        assert client.names(stream) == ["HEADERS"]
        assert (await lb.wait_records(1))[0].status == 503


@trio_test(timeout_s=15)
async def test_an_answer_that_breaks_off_ends_with_a_status_and_a_call_that_got_none_gets_one() -> None:
    async def script(peer: Peer) -> None:
        h2 = await speak(peer)
        asked = await h2.request()
        await h2.head(asked.id, *HEAD)
        await h2.data(asked.id, ONE[:7])
        h2.h2.reset_stream(asked.id, ErrorCodes.INTERNAL_ERROR)
        await h2.flush()
        second = await h2.request()
        h2.h2.reset_stream(second.id, ErrorCodes.INTERNAL_ERROR)
        await h2.flush()
        await h2.more()

    async with calling(script) as (lb, client):
        for body, status in ((ONE[:7], 200), (b"", 502)):
            stream = await there(lambda: call(client, end=True))
            said = await there(lambda stream=stream: told(client, stream))  # type: ignore[misc]
            assert said["grpc-status"] == "14"
            assert client.answers[stream].body == body
            assert (await lb.wait_records(1 + (status == 502)))[-1].status == status


@trio_test(timeout_s=15)
async def test_a_call_that_a_backend_refuses_goes_to_another_one() -> None:
    async def refusing(peer: Peer) -> None:
        h2 = await speak(peer)
        asked = await h2.begun()
        h2.h2.reset_stream(asked.id, ErrorCodes.REFUSED_STREAM)
        await h2.flush()
        await h2.more()

    heard: list[Asked] = []
    async with calling(refusing, echoing(heard)) as (_, client):
        for _ in range(2):  # one of them meets the first backend
            stream = await there(lambda: call(client, end=True))
            assert (await there(lambda stream=stream: told(client, stream)))["grpc-status"] == "0"  # type: ignore[misc]
        assert len(heard) == 2


@trio_test(timeout_s=15)
async def test_a_client_that_cancels_frees_the_backend_at_once() -> None:
    heard: list[Asked] = []
    async with calling(echoing(heard)) as (lb, client):
        stream = await there(lambda: call(client))
        await there(lambda: client.wait(lambda: client.answers[stream].body == ONE))
        await there(lambda: client.reset(stream))
        await wait_until(lambda: lb.leases == 0)
        await wait_until(lambda: heard[0].reset == ErrorCodes.CANCEL)
        (record,) = await lb.wait_records(1)
        assert record.error == "client_gone"


@trio_test(timeout_s=15)
async def test_a_deadline_that_nobody_keeps_ends_a_unary_call_and_frees_its_backend() -> None:
    heard: list[Asked] = []

    async def silent(peer: Peer) -> None:
        h2 = await speak(peer)
        heard.append(await h2.request())
        while True:
            await h2.more()

    async with calling(silent) as (lb, client):
        stream = await there(lambda: call(client, end=True, fields=[("grpc-timeout", "200m")]))
        said = await there(lambda: told(client, stream))
        assert (said["grpc-status"], said["proxy-status"]) == ("4", "edge; error=http_response_timeout")
        assert client.names(stream) == ["HEADERS"]
        await wait_until(lambda: heard[0].reset == ErrorCodes.CANCEL)
        assert (await lb.wait_records(1))[0].status == 504


@trio_test(timeout_s=15)
async def test_a_call_that_nobody_can_take_is_unavailable() -> None:
    setup = Setup(is_http2=True, pool_limits=PoolLimits(queue_timeout_s=0.1))
    async with proxy("h2", echoing([]), setup=setup) as lb:
        lb.publish()
        client = await there(lambda: connect2(lb.address.port))
        lb._clients.append(client)  # type: ignore[arg-type]
        stream = await there(lambda: call(client, end=True))
        said = await there(lambda: told(client, stream))
        assert (said["grpc-status"], said["proxy-status"]) == ("14", "edge; error=destination_unavailable")
        assert (await lb.wait_records(1))[0].status == 503
