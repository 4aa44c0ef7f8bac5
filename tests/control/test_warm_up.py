"""Requests that warm a backend up: all of them, whatever the answers, within their time."""

from functools import partial

import trio
from support.http2_answering import Said, answering
from support.trio_test import trio_test

from lbproxy.address import Address
from lbproxy.control import warm_up as module
from lbproxy.control.warm_up import warm_up
from lbproxy.settings import HealthSettings, PoolSettings


async def serve(nursery, asked, answer):
    """A backend that notes the head of each request and answers with these bytes, or never."""

    async def handle(stream):
        asked.append((await stream.receive_some(4096)).decode())
        if answer is None:
            await trio.sleep_forever()
        await stream.send_all(answer)
        await stream.aclose()

    (listener,) = await nursery.start(partial(trio.serve_tcp, handle, 0, host="127.0.0.1"))
    return Address("127.0.0.1", listener.socket.getsockname()[1])


@trio_test
async def test_every_path_is_asked_for_whatever_the_answers():
    for answer in (b"HTTP/1.1 500 no\r\nContent-Length: 2\r\n\r\nno", b"nonsense", b""):
        asked = []
        async with trio.open_nursery() as nursery:
            address = await serve(nursery, asked, answer)
            await warm_up(address, ["/", "/b?c"], PoolSettings("web", health=HealthSettings(host="app.example")))
            nursery.cancel_scope.cancel()
        assert [text.split()[1] for text in asked] == ["/", "/b?c"]
        assert all("\r\nHost: app.example\r\n" in text for text in asked)


@trio_test
async def test_nobody_waits_longer_than_that(monkeypatch):
    monkeypatch.setattr(module, "WARM_UP_S", 0.1)
    asked = []
    async with trio.open_nursery() as nursery:
        address = await serve(nursery, asked, None)
        with trio.fail_after(3):
            await warm_up(address, ["/a", "/b"], PoolSettings("web"))
        nursery.cancel_scope.cancel()
    assert len(asked) == 1
    await warm_up(Address("127.0.0.1", 1), ["/"], PoolSettings("web"))  # nobody listens


@trio_test
async def test_an_answer_with_bare_lfs_is_read_to_its_end_where_the_pool_accepts_them():
    whole = trio.Event()

    async def handle(stream):
        await stream.receive_some(4096)
        await stream.send_all(b"HTTP/1.1 200 OK\nContent-Length: 4\n\nab")
        with trio.move_on_after(5):  # else the client does not wait for the rest
            assert await _stays(stream)
            await stream.send_all(b"cd")
            whole.set()
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, handle, 0, host="127.0.0.1"))
        address = Address("127.0.0.1", listener.socket.getsockname()[1])
        await warm_up(address, ["/"], PoolSettings("web", accept_bare_lf=True))
        nursery.cancel_scope.cancel()
    assert whole.is_set()


async def _stays(stream):
    """The client has not closed its end."""
    with trio.move_on_after(0.05):
        return await stream.receive_some(1) != b""
    return True


@trio_test
async def test_a_backend_that_speaks_http_2_is_asked_in_http_2():
    asked = []

    def answer(fields, body):
        asked.append((fields[":method"], fields[":path"], fields[":authority"], fields["user-agent"]))
        return Said([(":status", "204")])

    settings = PoolSettings("web", protocol="h2c", health=HealthSettings(host="app.example"))
    async with answering(answer) as address:
        await warm_up(address, ["/", "/b?c"], settings)
    assert asked == [("GET", path, "app.example", "lbproxy-warm-up") for path in ("/", "/b?c")]
