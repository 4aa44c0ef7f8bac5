"""The goodbye, seen from both peers: the backend first, its last words, one Close for the client, its answer."""

from dataclasses import replace

import pytest
import trio
import trio.testing
from support.relaying import rig
from support.trio_test import trio_test
from support.websocket_talk import (
    DRAIN,
    FIRST,
    LAST,
    LONG,
    MASKED_CLOSE,
    OURS,
    PING,
    TEXT,
    Conversation,
    masked,
    our_close,
)
from wsproto.connection import ConnectionState
from wsproto.events import CloseConnection, Ping, TextMessage

from lbproxy.worker.relay.relay import Why
from lbproxy.worker.relay.side import BULK_BYTES


@trio_test
async def test_frames_pass_both_ways_untouched() -> None:
    async with rig() as made:
        talk = Conversation(made, DRAIN)
        await talk.client.say(TextMessage("question"), Ping(b"1"), CloseConnection(1000, "bye"))
        heard = await talk.backend.hear()
        assert [type(event) for event in heard] == [TextMessage, Ping, CloseConnection]
        await talk.backend.answer(heard[-1])
        (close,) = await talk.client.hear()
        assert close == CloseConnection(1000, "bye")
        talk.link.client.end()
        talk.link.backend.end()
        await talk.link.ended.wait()
        assert (talk.relay.why, talk.relay.closed_by, talk.relay.close_code) == (Why.DONE, "client", 1000)


@trio_test
async def test_a_backend_that_closes_is_named() -> None:
    async with rig() as made:
        talk = Conversation(made, DRAIN)
        await talk.backend.say(CloseConnection(1011, "trouble"))
        (close,) = await talk.client.hear()
        await talk.client.answer(close)
        (answer,) = await talk.backend.hear()
        assert answer.code == 1011
        talk.link.backend.sock.close()
        talk.link.client.sock.close()
        await talk.link.ended.wait()
        assert (talk.relay.closed_by, talk.relay.close_code) == ("backend", 1011)


@trio_test
async def test_an_end_without_a_close_has_no_code() -> None:
    async with rig() as made:
        talk = Conversation(made, DRAIN)
        talk.link.backend.sock.close()
        assert await talk.client.hear() == []
        talk.link.client.sock.close()
        await talk.link.ended.wait()
        assert (talk.relay.closed_by, talk.relay.close_code) == (None, None)


@trio_test
async def test_the_goodbye_step_by_step() -> None:
    async with rig() as made:
        talk = Conversation(made, replace(DRAIN, goodbye_s=LONG))
        talk.say_goodbye(LONG)
        (told,) = await talk.backend.hear()
        assert told == CloseConnection(1001, "off")
        await talk.client.say(TextMessage("nobody hears this"))
        await talk.link.backend.send(TEXT + b"\x88\x06\x0f\xa0mine")  # last words, and a code of its own
        heard = await talk.client.hear()
        assert heard == [TextMessage("hello"), CloseConnection(1001, "off")]
        assert talk.lease.closed_at is not None
        assert not talk.link.ended.is_set()
        await talk.client.answer(heard[-1])
        assert await talk.link.client.rest() == b""
        await talk.link.ended.wait()
        assert await talk.link.backend.rest() == b""
        relay = talk.relay
        assert (relay.why, relay.closed_by, relay.close_code) == (Why.DONE, "proxy", 1001)
        assert relay.dropped > len("nobody hears this")


@trio_test
async def test_a_backend_that_says_nothing_is_given_goodbye_seconds() -> None:
    async with rig() as made:
        talk = Conversation(made, DRAIN)
        began = trio.current_time()
        talk.say_goodbye(LONG)
        (close,) = await talk.client.hear()
        assert close == CloseConnection(1001, "off")
        assert DRAIN.goodbye_s - 0.1 < trio.current_time() - began < DRAIN.goodbye_s + 0.5
        await talk.link.backend.send(TEXT)  # too late
        await talk.client.answer(close)
        assert await talk.link.client.rest() == b""


@trio_test
async def test_a_client_that_never_answers_is_closed_after_goodbye_seconds() -> None:
    async with rig() as made:
        talk = Conversation(made, DRAIN)
        talk.say_goodbye(LONG)
        (told,) = await talk.backend.hear()
        await talk.backend.answer(told)
        assert await talk.link.client.rest() == OURS
        began = talk.lease.closed_at
        assert began is not None
        assert DRAIN.goodbye_s - 0.05 < trio.current_time() - began < DRAIN.goodbye_s + 0.5
        await talk.link.ended.wait()
        assert talk.relay.why is Why.DONE


@trio_test
async def test_a_client_that_hangs_up_instead_of_answering_is_done() -> None:
    async with rig() as made:
        talk = Conversation(made, replace(DRAIN, goodbye_s=LONG))
        talk.say_goodbye(LONG)
        (told,) = await talk.backend.hear()
        await talk.backend.answer(told)
        await talk.client.hear()
        talk.link.client.sock.close()
        await talk.link.ended.wait()
        assert talk.relay.why is Why.DONE


@pytest.mark.parametrize("cut", range(1, len(masked(TEXT))))
def test_the_backend_is_told_behind_the_frame_in_hand(cut: int) -> None:
    frame = masked(TEXT)

    @trio_test
    async def run() -> None:
        async with rig() as made:
            talk = Conversation(made, DRAIN, tcp=False)
            await talk.pass_raw_up(frame[:cut])
            talk.say_goodbye(LONG)
            await talk.link.client.send(frame[cut:] + frame)
            wire = await talk.link.backend.receive(len(frame) - cut + len(MASKED_CLOSE))
            assert wire[: len(frame) - cut] == frame[cut:]
            assert our_close(wire[len(frame) - cut :])

    run()


@trio_test
async def test_the_client_gets_its_close_behind_the_message_in_hand() -> None:
    message = FIRST + PING + LAST

    async def converse(cut: int) -> None:
        talk = Conversation(made, replace(DRAIN, goodbye_s=0.12), tcp=False)
        await talk.pass_raw(TEXT + message[:cut])
        talk.say_goodbye(LONG)
        if cut:
            await trio.sleep(0.35)  # the backend's time is over, the window is not
            assert talk.lease.closed_at is None
        await talk.link.backend.send(message[cut:] + TEXT)
        expected = message[cut:] if cut else message + TEXT
        assert await talk.link.client.receive(len(expected)) == expected
        assert await talk.link.client.rest() == OURS

    async with rig() as made, trio.open_nursery() as nursery:
        for cut in range(len(message)):
            nursery.start_soon(converse, cut)


@trio_test
async def test_once_the_window_is_over_the_client_gets_its_close_between_two_frames() -> None:
    async with rig() as made:
        talk = Conversation(made, DRAIN)
        await talk.pass_raw(FIRST + PING)
        talk.say_goodbye(0.6)
        began = trio.current_time()
        assert await talk.link.client.receive(len(OURS)) == OURS
        assert trio.current_time() - began >= 0.6


@trio_test
async def test_a_frame_that_never_ends_is_cut_without_a_close() -> None:
    async with rig() as made:
        talk = Conversation(made, DRAIN)
        await talk.pass_raw(FIRST + LAST[:-1])
        began = trio.current_time()
        talk.say_goodbye(0.3)
        assert await talk.link.client.rest() == b""
        await talk.link.ended.wait()
        assert 0.7 <= trio.current_time() - began < 1.2
        assert (talk.relay.why, talk.relay.closed_by, talk.lease.closed_at) == (Why.CUT, None, None)


@trio_test
async def test_a_client_in_a_frame_that_never_ends_still_gets_its_close() -> None:
    async with rig() as made:
        talk = Conversation(made, DRAIN)
        await talk.pass_raw_up(masked(TEXT)[:-1])
        talk.say_goodbye(0.3)
        assert await talk.link.client.rest() == OURS
        assert await talk.link.backend.rest() == b""
        assert talk.relay.closed_by == "proxy"


@trio_test
async def test_a_client_that_ends_its_frame_late_answers_in_time() -> None:
    async with rig() as made:
        talk = Conversation(made, replace(DRAIN, goodbye_s=1.0))
        await talk.pass_raw_up(masked(TEXT)[:-1])
        talk.say_goodbye(0.1)
        assert await talk.link.client.receive(len(OURS)) == OURS
        await talk.link.client.send(masked(TEXT)[-1:] + MASKED_CLOSE)
        assert await talk.link.client.rest() == b""
        await talk.link.ended.wait()
        wire = await talk.link.backend.rest()
        assert wire[:1] == masked(TEXT)[-1:]
        assert our_close(wire[1:])
        assert talk.relay.why is Why.DONE


@trio_test
async def test_a_shorter_window_is_obeyed() -> None:
    async with rig() as made:
        talk = Conversation(made, DRAIN)
        await talk.pass_raw(FIRST)
        talk.say_goodbye(LONG)
        await trio.sleep(DRAIN.goodbye_s + 0.25)
        assert talk.lease.closed_at is None
        talk.say_goodbye(0.0)
        assert await talk.link.client.receive(len(OURS)) == OURS


@trio_test
async def test_a_close_that_the_client_had_begun_is_left_alone() -> None:
    async with rig() as made:
        talk = Conversation(made, replace(DRAIN, goodbye_s=LONG))
        await talk.client.say(CloseConnection(1000, "mine"))
        (close,) = await talk.backend.hear()
        talk.say_goodbye(LONG)
        await talk.backend.answer(close)
        assert await talk.client.hear() == [CloseConnection(1000, "mine")]
        assert talk.client.protocol.state is ConnectionState.CLOSED
        talk.link.backend.end()
        talk.link.client.end()
        await talk.link.ended.wait()
        assert await talk.link.backend.rest() == b""
        assert (talk.relay.why, talk.relay.closed_by, talk.relay.close_code) == (Why.DONE, "client", 1000)


@pytest.mark.parametrize("cut", range(1, len(MASKED_CLOSE)))
def test_a_close_of_the_client_in_pieces_is_left_alone(cut: int) -> None:
    @trio_test
    async def run() -> None:
        async with rig() as made:
            talk = Conversation(made, replace(DRAIN, goodbye_s=LONG), tcp=False)
            await talk.pass_raw_up(MASKED_CLOSE[:cut])
            talk.say_goodbye(LONG)
            await talk.pass_raw_up(MASKED_CLOSE[cut:])
            await talk.pass_raw(b"\x88\x02\x03\xe8")
            talk.link.client.end()
            assert await talk.link.backend.rest() == b""
            talk.link.backend.end()
            assert await talk.link.client.rest() == b""
            assert talk.relay.closed_by == "client"

    run()


@pytest.mark.parametrize("cut", range(1, len(OURS)))
def test_a_close_of_the_backend_in_pieces_is_left_alone(cut: int) -> None:
    close = b"\x88\x05\x03\xf3own"

    @trio_test
    async def run() -> None:
        async with rig() as made:
            talk = Conversation(made, replace(DRAIN, goodbye_s=LONG), tcp=False)
            await talk.pass_raw(close[:cut])
            talk.say_goodbye(LONG)
            await talk.pass_raw(close[cut:])
            talk.link.backend.end()
            assert await talk.link.client.rest() == b""
            talk.link.client.end()
            await talk.link.ended.wait()
            assert (talk.relay.closed_by, talk.relay.close_code) == ("backend", 1011)

    run()


@trio_test
async def test_a_client_that_closes_while_the_backend_is_heard_out_keeps_its_code() -> None:
    async with rig() as made:
        talk = Conversation(made, replace(DRAIN, goodbye_s=LONG))
        talk.say_goodbye(LONG)
        (told,) = await talk.backend.hear()
        await talk.client.say(CloseConnection(1000, "mine"))
        await trio.testing.wait_all_tasks_blocked(0.02)
        await talk.backend.answer(told)
        assert await talk.client.hear() == [CloseConnection(1000, "")]
        assert await talk.link.client.rest() == b""
        await talk.link.ended.wait()
        assert (talk.relay.closed_by, talk.relay.close_code) == ("client", 1000)


@pytest.mark.parametrize("cut", range(len(TEXT) + 1))
def test_a_backend_that_dies_in_its_goodbye_does_not_take_the_close_with_it(cut: int) -> None:
    @trio_test
    async def run() -> None:
        async with rig() as made:
            talk = Conversation(made, replace(DRAIN, goodbye_s=LONG), tcp=False)
            talk.say_goodbye(LONG)
            await talk.pass_raw(TEXT[:cut])
            talk.link.backend.sock.close()
            whole = cut in (0, len(TEXT))
            assert await talk.link.client.receive(len(OURS)) == (OURS if whole else b"")
            talk.link.client.sock.close()
            await talk.link.ended.wait()

    run()


@trio_test
async def test_bytes_that_are_no_frames_pass_and_are_cut_in_the_end() -> None:
    async with rig() as made:
        talk = Conversation(made, DRAIN)
        await talk.pass_raw(b"\x0frubbish")
        talk.say_goodbye(0.2)
        await talk.pass_raw(b"more of it")
        assert await talk.link.client.rest() == b""
        assert talk.relay.why is Why.CUT


@trio_test
async def test_a_frame_of_a_gigabyte_costs_no_more_than_a_small_one() -> None:
    async with rig() as made:
        talk = Conversation(made, DRAIN)
        await talk.pass_raw(b"\x82\x7f" + (1 << 30).to_bytes(8, "big"))
        sent = 0
        while more := talk.link.backend.fill():
            sent += more
            await trio.testing.wait_all_tasks_blocked(0.02)
        assert sent < 1 << 26
        assert len(talk.relay.client.outbox) <= BULK_BYTES
        assert await talk.link.client.receive(sent) == bytes(sent)


@trio_test
async def test_a_client_that_reads_slowly_gets_everything_and_then_its_close() -> None:
    async with rig() as made:
        talk = Conversation(made, replace(DRAIN, goodbye_s=LONG), tcp=False)
        frame = b"\x82\x7e\xff\xff" + bytes(65535)
        async with trio.open_nursery() as nursery:

            async def talk_on() -> None:
                await talk.link.backend.send(frame * 20)
                (told,) = await talk.backend.hear()
                await talk.backend.answer(told)

            nursery.start_soon(talk_on)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert talk.relay.client.outbox
            talk.say_goodbye(LONG)
            assert await talk.link.client.receive(20 * len(frame)) == frame * 20
            assert await talk.link.client.receive(len(OURS)) == OURS


@trio_test
async def test_a_backend_that_reads_nothing_keeps_nobody_from_leaving() -> None:
    async with rig() as made:
        talk = Conversation(made, DRAIN, tcp=False)
        frame = b"\x82\xfe\xff\xff" + bytes(4 + 65535)
        with trio.move_on_after(0.1):
            await talk.link.client.send(frame * 40)
        talk.say_goodbye(0.2)
        assert await talk.link.client.receive(len(OURS)) == OURS
        await talk.link.ended.wait()
        assert await talk.link.client.rest() == b""
