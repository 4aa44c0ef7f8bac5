"""Sticky clients, in both lanes: they stay, get a cookie where they have none that is good, and the bytes are alike."""

import re
from dataclasses import replace

import pytest
from support.peer import Message, Peer
from support.proxy import GET, LANES, Proxy, Script, Setup, every_lane, get, lanes, proxy, wait_until
from support.trio_test import trio_test

from lbproxy.settings import PoolLimits, StickySettings

STICKY = Setup(sticky=StickySettings(), balance="round_robin")
COOKIE = b"Cookie: a=1; lbproxy=token-%d; b=2"
UPGRADE = (b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
LINE = b"lbproxy=token-%d; Path=/; HttpOnly; SameSite=Lax%b"


def named(slot: int) -> Script:
    """A backend that says which one it is."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % slot)

    return script


BACKENDS = tuple(map(named, (1, 2, 3)))


async def handshake(lb: Proxy, *fields: bytes) -> Message:
    client = await lb.client()
    await client.send(get(b"/", *UPGRADE, *fields))
    return await client.head()


def cookie(lane: str, slot: int) -> bytes:
    return LINE % (slot, b"; Secure" if lane == "tls" else b"")


def assert_bound(lane: str, answer: Message) -> None:
    assert answer.get(b"set-cookie") == cookie(lane, int(answer.body))


@lanes
@trio_test(timeout_s=8)
async def test_a_client_gets_a_cookie_once_and_stays(lane: str) -> None:
    async with proxy(lane, *BACKENDS, setup=STICKY) as lb:
        for _ in range(3):
            answer = await lb.ask(GET)
            assert_bound(lane, answer)
            slot = int(answer.body)
            client = await lb.client()
            for number in range(4):
                await client.send(get(b"/%d" % number, COOKIE % slot))
                again = await client.answer()
                assert (int(again.body), again.get(b"set-cookie")) == (slot, None)
        assert COOKIE % slot in lb.backends[slot - 1].received  # the backend sees it: nothing is taken out


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize(
    "fields",
    [
        (),
        (b"Cookie: lbproxy=forged",),
        (b"Cookie: lbproxy=token-",),
        (b"Cookie: lbproxy=token-11",),
        (b'Cookie: lbproxy="token-1"',),
        (b"Cookie: lbproxy=token-1; lbproxy=token-1",),
        (b"Cookie: lbproxy=token-1", b"Cookie: lbproxy=token-2"),
        (b"Cookie: xlbproxy=token-1; LBPROXY=token-1",),
        (b"X-Cookie: lbproxy=token-1",),
        (b"Connection: Cookie", b"Cookie: lbproxy=token-1"),
        (b"Cookie: lbproxy=\xff\xfe",),
    ],
)
@trio_test(timeout_s=8)
async def test_what_is_no_cookie_of_ours_is_none(lane: str, fields: tuple[bytes, ...]) -> None:
    async with proxy(lane, *BACKENDS, setup=STICKY) as lb:
        answers = [await lb.ask(get(b"/", *fields)) for _ in range(6)]
        assert {int(answer.body) for answer in answers} == {1, 2, 3}
        for answer in answers:
            assert_bound(lane, answer)


@every_lane
@trio_test(timeout_s=8)
async def test_a_slot_that_is_gone_or_refuses_is_left_for_another_with_a_cookie_of_its_own(lane: str) -> None:
    async with proxy(lane, *BACKENDS, setup=STICKY) as lb:
        assert (await lb.ask(get(b"/", COOKIE % 2))).body == b"2"
        lb.backends[1].refuse()
        for peer in lb.backends[1].peers:
            peer.close()
        answer = await lb.ask(get(b"/", COOKIE % 2))
        assert answer.body != b"2"
        assert_bound(lane, answer)
        lb.publish(0)
        assert_bound(lane, await lb.ask(get(b"/", COOKIE % 3)))


@every_lane
@trio_test(timeout_s=8)
async def test_a_slot_that_gives_no_answer_is_left_by_what_may_be_sent_again(lane: str) -> None:
    async def leave(peer: Peer) -> None:
        await peer.request()

    async with proxy(lane, leave, named(2), setup=STICKY) as lb:
        answer = await lb.ask(get(b"/", COOKIE % 1))
        assert (answer.status, answer.body) == (200, b"2")
        assert_bound(lane, answer)


@every_lane
@trio_test(timeout_s=8)
async def test_a_slot_that_is_full_is_left(lane: str) -> None:
    async def slow(peer: Peer) -> None:
        await peer.request()
        await peer.wait_ended()

    async with proxy(lane, slow, named(2), setup=replace(STICKY, pool_limits=PoolLimits(connections=1))) as lb:
        first = await lb.client()
        await first.send(get(b"/", COOKIE % 1))
        await wait_until(lambda: lb.leases)
        assert_bound(lane, await lb.ask(get(b"/", COOKIE % 1)))


@lanes
@trio_test(timeout_s=8)
async def test_a_websocket_stays_on_its_slot_and_its_101_sets_the_cookie(lane: str) -> None:
    async def switching(peer: Peer) -> None:
        await peer.request()
        await peer.send(SWITCH)
        await peer.wait_ended()

    async with proxy(lane, switching, switching, setup=STICKY) as lb:
        for slot in (1, 2, 1):
            answer = await handshake(lb, COOKIE % slot)
            assert (answer.status, answer.get(b"set-cookie")) == (101, None)
        assert [len(backend.peers) for backend in lb.backends] == [2, 1]
        answer = await handshake(lb)
        assert answer.get(b"set-cookie") in (cookie(lane, 1), cookie(lane, 2))


@every_lane
@trio_test(timeout_s=8)
async def test_interim_answers_set_no_cookie(lane: str) -> None:
    async def hinting(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1")
        await peer.wait_ended()

    async with proxy(lane, hinting, setup=STICKY) as lb:
        client = await lb.client()
        await client.send(GET)
        hint = await client.head()
        assert (hint.status, hint.get(b"set-cookie")) == (103, None)
        assert_bound(lane, await client.answer())


@trio_test(timeout_s=8)
async def test_both_lanes_send_the_same_bytes() -> None:
    heard = []
    for lane in ("express", "task"):
        async with proxy(lane, named(1), setup=replace(STICKY, dates=True)) as lb:
            answers = [await lb.ask(get(b"/%d" % number)) for number in range(3)]
            heard.append([_without_chance(answer.raw) for answer in answers])
    assert heard[0] == heard[1]
    assert b"Set-Cookie: lbproxy=token-1; Path=/; HttpOnly; SameSite=Lax\r\nDate: " in heard[0][0]


@lanes
@trio_test(timeout_s=8)
async def test_the_log_has_the_id_alone(lane: str) -> None:
    async with proxy(lane, named(1), setup=STICKY) as lb:
        told = (await lb.ask(GET)).get(b"x-request-id")
        [record] = await lb.wait_records(1)
        assert record.request_id == told


def _without_chance(raw: bytes) -> bytes:
    raw = re.sub(rb"X-Request-ID: [0-9a-f]{32}", b"X-Request-ID: id", raw)
    return re.sub(rb"Date: [^\r]*", b"Date: ", raw)
