"""Strict-Transport-Security on a listener that asks for it: on every kind of answer, once, in both lanes."""

from dataclasses import replace

import pytest
from support.peer import Peer
from support.proxy import GET, OK, Setup, answering, get, lanes, proxy, wait_until
from support.trio_test import trio_test

HSTS = Setup(more={"hsts_s": 15_552_000.0})
FIELD, VALUE = b"strict-transport-security", b"max-age=15552000"
DATED = b"HTTP/1.1 200 OK\r\nDate: Wed, 25 Nov 2026 09:00:00 GMT\r\nETag: %d\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
OWN = b"HTTP/1.1 200 OK\r\nSTRICT-transport-Security: max-age=1; preload\r\nContent-Length: 5\r\n\r\nhello"
UNNAMED = OWN.replace(b"\r\nContent", b"\r\nConnection: Strict-Transport-Security\r\nContent")


@lanes
@trio_test(timeout_s=8)
async def test_every_answer_has_it_once(lane: str) -> None:
    answers = (DATED % 1, DATED % 1, DATED % 1, DATED % 2, DATED % 3, DATED % 4, OK, OK, OK, CHUNKED, UNNAMED)
    async with proxy(lane, answering(*answers), setup=HSTS) as lb:
        client = await lb.client()
        for number in range(len(answers)):
            await client.send(get(b"/%d" % (number // 4)))
            answer = await client.answer()
            assert (answer.body, answer.get(FIELD)) == (b"hello", VALUE), number


@lanes
@trio_test(timeout_s=8)
async def test_what_the_backend_sets_stays_as_it_is(lane: str) -> None:
    async with proxy(lane, answering(OWN), setup=HSTS) as lb:
        client = await lb.client()
        for number in range(6):
            await client.send(get(b"/%d" % (number // 4)))
            assert (await client.answer()).get(FIELD) == b"max-age=1; preload"


@lanes
@trio_test(timeout_s=8)
async def test_answers_of_lbproxy_have_it_too(lane: str) -> None:
    async with proxy(lane, answering(b"nonsense"), setup=replace(HSTS, pool=None)) as lb:
        for data in (GET, b"GET / HTTP/1.1\r\n\r\n"):
            answer = await lb.ask(data)
            assert (answer.status in (400, 404), answer.get(FIELD)) == (True, VALUE)


@lanes
@trio_test(timeout_s=8)
async def test_an_interim_answer_has_it_not(lane: str) -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    async with proxy(lane, answering(early + OK), setup=HSTS) as lb:
        client = await lb.client()
        await client.send(GET)
        assert FIELD not in (await client.until(b"\r\n\r\n")).lower()
        assert (await client.answer()).get(FIELD) == VALUE


@lanes
@trio_test(timeout_s=8)
async def test_open_connections_follow_the_settings(lane: str) -> None:
    async with proxy(lane, answering(OK)) as lb:
        client = await lb.client()
        for setup, value in ((Setup(), None), (HSTS, VALUE), (Setup(), None)):
            lb.setup = setup
            lb.publish(0)
            lb.lanes.refresh(lb.router.table.listeners)
            for _ in range(3):
                await client.send(GET)
                assert (await client.answer()).get(FIELD) == value


@lanes
@pytest.mark.parametrize("setup", [Setup(), HSTS])
@trio_test(timeout_s=8)
async def test_a_stopping_worker_says_that_the_connection_ends(lane: str, setup: Setup) -> None:
    asked = []

    async def slow(peer: Peer) -> None:
        for _ in range(3):
            await peer.request()
            await peer.send(OK)
        await peer.request()
        asked.append(peer)
        await wait_until(lambda: lb.lanes.stopping)
        await peer.send(OK)

    async with proxy(lane, slow, setup=setup) as lb:
        client = await lb.client()
        for _ in range(3):
            await client.send(GET)
            assert (await client.answer()).get(b"connection") is None
        await client.send(GET)
        await wait_until(lambda: asked)
        lb.lanes.stop(5)
        answer = await client.answer()
        assert answer.get(b"connection") == b"close"
        assert answer.get(FIELD) == (VALUE if setup is HSTS else None)
