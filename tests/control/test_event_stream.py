"""GET /v1/events: where a stream begins, what it tells, how it ends."""

import json
import time
from contextlib import aclosing

import pytest
import trio
from support.trio_test import trio_test

from lbproxy.control import event_stream
from lbproxy.control.api_server import Declined, Question
from lbproxy.control.event_stream import EventStreams
from lbproxy.telemetry.event_ring import EventRing
from lbproxy.telemetry.events import ConfigRejected, Notice


def ring_of(count, size=100):
    ring = EventRing(size, lambda: 100.0)  # ids from 100000
    for number in range(count):
        ring.add(Notice(f"notice {number}"), time.time() - 60 * (count - number))
    return ring


def ask(ring, last=None, show=lambda values: values, **query):
    fields = {} if last is None else {"last-event-id": last}
    return EventStreams(ring, show).answer(Question("GET", "/v1/events", query, {}, fields))


async def told(ring, last=None, **query):
    """The numbers of the notices that a client gets that does not follow."""
    answer = ask(ring, last, format="lines", follow="0", **query)
    async with aclosing(answer.stream[1]) as pieces:
        lines = [json.loads(line) for piece in [piece async for piece in pieces] for line in piece.splitlines()]
    return [int(line["text"].split()[1]) if line["event"] == "notice" else line["event"] for line in lines]


@trio_test
async def test_a_stream_begins_where_the_client_says():
    ring = ring_of(6)
    assert await told(ring) == [0, 1, 2, 3, 4, 5]
    assert await told(ring, "100003") == [4, 5]
    assert await told(ring, after="100004") == [5]
    assert await told(ring, since="150") == [4, 5]
    assert await told(ring, n="3") == [3, 4, 5]
    assert await told(ring, n="1", since="150") == [5]
    assert await told(ring, n="0") == []


@trio_test
async def test_an_id_of_an_earlier_or_later_run_begins_with_all_there_is():
    assert await told(ring_of(3), "5") == [0, 1, 2]
    assert await told(ring_of(3), "999999999") == [0, 1, 2]


@trio_test
async def test_lost_events_are_counted():
    ring = ring_of(6, size=4)
    assert await told(ring, "100000") == ["log.dropped", 2, 3, 4, 5]
    assert await told(ring, "100001") == [2, 3, 4, 5]


@trio_test
async def test_more_than_a_batch_comes_whole():
    assert await told(ring_of(250, size=300)) == list(range(250))


@pytest.mark.parametrize(
    ("query", "last"),
    [({"since": "10m"}, None), ({"n": "-1"}, None), ({}, "x"), ({}, "9" * 30), ({"format": "xml"}, None)],
)
def test_a_wrong_question_is_refused(query, last):
    with pytest.raises(Declined) as caught:
        ask(ring_of(1), last, **query)
    assert caught.value.answer.status == 400


@trio_test
async def test_an_event_source_gets_ids_and_goes_on_with_what_comes():
    ring = ring_of(2)
    answer = ask(ring)
    assert answer.stream[0] == "text/event-stream"
    async with aclosing(answer.stream[1]) as pieces:
        assert await anext(pieces) == b"retry: 2000\n\n"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(come, ring)
            piece = await anext(pieces)
    first, second, *rest = piece.split(b"\n")
    assert first == b"id: 100002"
    assert rest == [b"", b""]
    values = json.loads(second.removeprefix(b"data: "))
    assert (values["event"], values["level"], values["id"]) == ("config.rejected", "error", 100_002)
    assert values["text"] == "lb.toml is not valid, the configuration in use stays:"


async def come(ring):
    await trio.testing.wait_all_tasks_blocked()
    ring.add(ConfigRejected("lb.toml", "a\n<b>"), 1.0)


@trio_test
async def test_silence_is_broken_by_a_comment(monkeypatch):
    monkeypatch.setattr(event_stream, "HEARTBEAT_S", 0.01)
    async with aclosing(ask(ring_of(2)).stream[1]) as pieces:
        await anext(pieces)
        assert await anext(pieces) == b":\n\n"


@trio_test
async def test_a_stream_ends_with_lbproxy():
    ring = ring_of(2)
    ring.end()
    async with aclosing(ask(ring, "100000").stream[1]) as pieces:
        assert len([piece async for piece in pieces]) == 2


@trio_test
async def test_what_must_not_be_shown_is_taken_out():
    async with aclosing(ask(ring_of(2), "100000", show=lambda values: {"id": 7}).stream[1]) as pieces:
        assert [piece async for piece in _first(pieces, 2)][1] == b'id: 7\ndata: {"id":7}\n\n'


async def _first(pieces, count):
    for _ in range(count):
        yield await anext(pieces)


def test_streams_are_few_and_make_room_when_they_end(monkeypatch):
    monkeypatch.setattr(event_stream, "MOST_STREAMS", 2)
    streams = EventStreams(ring_of(1))
    question = Question("GET", "/v1/events", {}, {})
    answers = [streams.answer(question) for _ in range(2)]
    with pytest.raises(Declined) as caught:
        streams.answer(question)
    assert (caught.value.answer.status, caught.value.answer.fields) == (503, (("Retry-After", "5"),))
    answers[0].on_end()
    streams.answer(question)
