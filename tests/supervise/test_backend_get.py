"""One GET to a backend: the same question in the protocol of its pool."""

from functools import partial

import pytest
import trio
from support.http2_answering import Said, answering
from support.trio_test import trio_test

from lbproxy.address import Address
from lbproxy.settings import HealthSettings, PoolSettings
from lbproxy.supervise.backend_get import connect_to, get, with_headers

FIELDS = (("User-Agent", "somebody"),)


async def got(address: Address, settings: PoolSettings) -> tuple[int, bytes]:
    async with await connect_to(address, settings) as stream:
        answer = await get(stream, address, settings, "/a?b", FIELDS, most_bytes=3, body_s=1.0)
    return answer.status, answer.body[:3]


@trio_test
async def test_a_pool_that_speaks_http2_is_asked_in_it() -> None:
    seen: list[dict[str, str]] = []

    def answer(fields: dict[str, str], body: bytes) -> Said:
        seen.append(fields)
        return Said([(":status", "418")], b"hello")

    async with answering(answer) as address:
        settings = PoolSettings("web", protocol="h2c", health=HealthSettings(host="app.example"))
        assert await got(address, settings) == (418, b"hel")
    assert [seen[0][name] for name in (":method", ":authority", ":path", "user-agent")] == [
        *("GET", "app.example", "/a?b", "somebody")
    ]


@trio_test
async def test_any_other_is_asked_in_http1_behind_its_proxy_header() -> None:
    seen: list[bytes] = []

    async def serve(stream: trio.SocketStream) -> None:
        seen.append(bytes(await stream.receive_some(4096)))
        await stream.send_all(b"HTTP/1.1 418 x\r\nContent-Length: 5\r\n\r\nhello")

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        address = Address("127.0.0.1", listener.socket.getsockname()[1])
        settings = PoolSettings("web", send_proxy="v1", health=HealthSettings(host="app.example"))
        assert await got(address, settings) == (418, b"hel")
        nursery.cancel_scope.cancel()
    greeting, _, request = seen[0].partition(b"\r\n")
    assert greeting == b"PROXY UNKNOWN"
    assert request.startswith(b"GET /a?b HTTP/1.1\r\nHost: app.example\r\nUser-Agent: somebody\r\n")


@pytest.mark.parametrize(
    ("headers", "fields"),
    [
        ((), (("Accept", "*/*"), ("X", "1"))),
        ((("accept", "text/html"), ("Y", "2")), (("X", "1"), ("accept", "text/html"), ("Y", "2"))),
    ],
)
def test_of_two_fields_with_a_name_the_operators_is_sent(
    headers: tuple[tuple[str, str], ...], fields: tuple[tuple[str, str], ...]
) -> None:
    assert with_headers(HealthSettings(headers=headers), {"Accept": "*/*", "X": "1"}) == fields
