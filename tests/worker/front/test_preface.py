"""The first bytes of a client say whether it speaks HTTP/2 (h2c) or HTTP/1.1."""

import pytest
from support.proxy import GET, OK, Setup, answering, get, proxy
from support.trio_test import trio_test

from lbproxy.settings import ListenerTimeouts
from lbproxy.wire.http2.frames import PREFACE
from lbproxy.worker.front.preface import PrefaceStage

BOTH = {"protocols": ("http/1.1", "h2c")}


@pytest.mark.parametrize("cut", range(1, len(PREFACE)))
def test_a_part_of_the_preface_decides_nothing(cut: int) -> None:
    stage = PrefaceStage()
    assert stage.feed(PREFACE[:cut]) is None
    passed = stage.feed(PREFACE + b"more")
    assert passed is not None
    assert (passed.early, passed.protocol) == (PREFACE + b"more", "h2c")


@pytest.mark.parametrize("said", [b"G", b"PRI * HTTP/1.1\r\n", b"PUT / HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n\r\nSN"])
def test_anything_else_is_http1(said: bytes) -> None:
    passed = PrefaceStage().feed(said)
    assert passed is not None
    assert (passed.early, passed.protocol) == (said, "http/1.1")


@trio_test(timeout_s=8)
async def test_a_listener_with_both_serves_both_and_lets_a_silent_client_idle() -> None:
    setup = Setup(more=BOTH, timeouts=ListenerTimeouts(header_s=0.2, idle_s=0.6))
    async with proxy("express", answering(OK), setup=setup) as lb:
        silent = await lb.client()
        client = await lb.client()
        await client.dribble(GET)
        assert (await client.answer()).status == 200
        half = await lb.client()
        await half.send(PREFACE[:10])
        assert await half.rest() == b""  # after header_s
        assert not silent.received
        await silent.send(get(b"/late"))
        assert (await silent.answer()).status == 200
        assert len(lb.records) == 2
        lb.expected_notices = 1  # of the half preface
