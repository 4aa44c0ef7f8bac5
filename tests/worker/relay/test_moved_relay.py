"""What a relay has in hand goes to another relay over the same sockets, wherever its bytes and frames stand."""

import base64
import random
import socket
from dataclasses import replace

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from support.relaying import Relayed, Rig, rig
from support.trio_test import trio_test

from lbproxy.address import Address
from lbproxy.link.codec import decode, encode
from lbproxy.link.messages import Take, ToWorker
from lbproxy.link.moved import MovedClient, MovedConnection, MovedKind, MovedLease, MovedRelay, MovedSide
from lbproxy.model import BackendId, BackendView
from lbproxy.settings import DrainSettings
from lbproxy.wire.websocket import FrameTracker, close_frame
from lbproxy.worker.io.splice import Pipes
from lbproxy.worker.leases.drain import Lease
from lbproxy.worker.relay.moved_relay import resume, value_of
from lbproxy.worker.relay.relay import Relay, Why
from lbproxy.worker.relay.websocket import WebSocketRelay

LEASE = MovedLease(BackendView(BackendId("web", 1, 1), Address("127.0.0.1", 1), 2), 1.0)
KIB = 1024


class Secure(socket.socket):
    """A socket with state of this process behind it, as that of a TLS session."""


def moved(made: Rig, link: Relayed[Relay], kind: type[Relay] = Relay, pipes: Pipes | None = None) -> None:
    """The relay of `link` is another one from now on, made of the value of the first, over copies of its sockets."""
    before = link.relay
    before.lift()
    value = value_of(before, LEASE)
    take = decode(encode(Take(1, MovedConnection(MovedKind.TCP, 1, MovedClient(""), 0.0, relay=value))), ToWorker)
    more = {} if pipes is None else {"pipes": pipes}
    client, backend = before.client.sock.dup(), before.backend.sock.dup()
    for sock in (client, backend):
        sock.setblocking(False)
    after = kind(made.reactor, client, backend, stall_s=5.0, on_end=link.on_end, **more)  # type: ignore[arg-type]
    before.let_go()
    link.relay = after
    made.add(after)
    resume(after, take.moved.relay)


def frames(dice: random.Random, size: int, *, masked: bool) -> bytes:
    """Messages in fragments with pings between them, ended by a Close."""
    data = b""
    while len(data) < size:
        parts = dice.randint(1, 3)
        for number in range(parts):
            payload = dice.randbytes(dice.choice((0, 1, 125, 126, 3000, 70_000)))
            first = (0x80 if number == parts - 1 else 0) | (0 if number else 2)
            data += frame(first, payload, masked=masked)
            if dice.random() < 0.3:
                data += frame(0x89, b"?", masked=masked)
    return data + close_frame(1000, "bye", b"\1\2\3\4" if masked else None)


def frame(first: int, payload: bytes, *, masked: bool) -> bytes:
    bit = 0x80 if masked else 0
    if len(payload) < 126:
        head = bytes((first, bit | len(payload)))
    elif len(payload) < 65536:
        head = bytes((first, bit | 126)) + len(payload).to_bytes(2, "big")
    else:
        head = bytes((first, bit | 127)) + len(payload).to_bytes(8, "big")
    return head + (b"\0\0\0\0" if masked else b"") + payload


@settings(max_examples=25)
@given(seed=st.integers(0, 1 << 32), cuts=st.lists(st.integers(1, 200_000), max_size=8), websocket=st.booleans())
def test_a_relay_that_moves_between_any_two_bytes_passes_them_all(seed: int, cuts: list[int], websocket: bool) -> None:
    dice = random.Random(seed)
    asked, answered = frames(dice, 60 * KIB, masked=True), frames(dice, 150 * KIB, masked=False)
    kind: type[Relay] = WebSocketRelay if websocket else Relay

    @trio_test(timeout_s=10)
    async def run() -> None:
        async with rig() as made:
            link: Relayed[Relay] = made.relay(kind)
            link.relay.start()

            async def say(data: bytes, ours: bool) -> None:
                at = 0
                for size in (*cuts, len(data)):
                    await (link.client if ours else link.backend).send(data[at : at + size])
                    at += size
                    await trio.sleep(dice.choice((0, 0.001)))
                (link.client if ours else link.backend).end()

            async def move() -> None:
                for _ in range(4):
                    await trio.sleep(dice.choice((0, 0.001, 0.002)))
                    if not link.relay.is_movable:
                        return
                    moved(made, link, kind)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(say, asked, True)
                nursery.start_soon(say, answered, False)
                nursery.start_soon(move)

                async def hear() -> None:
                    assert await link.backend.rest() == asked

                nursery.start_soon(hear)
                assert await link.client.rest() == answered
            await link.ended.wait()
            assert link.relay.why is Why.DONE
            assert (link.relay.client.received, link.relay.backend.received) == (len(asked), len(answered))
            if isinstance(link.relay, WebSocketRelay):
                assert link.relay.close_code == 1000
                whole = FrameTracker()
                whole.feed(answered)
                assert link.relay.from_backend.frames == whole.frames
                assert link.relay.from_backend.messages == whole.messages

    run()


@trio_test(timeout_s=8)
async def test_bytes_in_a_pipe_are_read_out_and_go_along() -> None:
    pipes = Pipes()
    sent = random.Random(3).randbytes(24 * KIB * KIB)
    async with rig() as made:
        link: Relayed[Relay] = made.relay(Relay, pipes=pipes)
        link.relay.start()
        moves = 0

        async def say() -> None:
            await link.backend.send(sent)
            link.backend.end()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(say)
            got = b""
            while len(got) < len(sent):
                with trio.fail_after(3):
                    while link.relay.client.pipe is None or not link.relay.client.outbox:
                        if moves == 3:
                            break
                        await trio.sleep(0.001)
                if moves < 3:
                    moved(made, link, pipes=pipes)
                    assert link.relay.client.outbox
                    moves += 1
                more = await link.client.receive(4 * KIB * KIB)
                assert more
                got += more
        assert got == sent
        assert moves == 3
        link.client.end()
        await link.ended.wait()
    assert pipes._taken == 0
    pipes.close()


@trio_test(timeout_s=8)
async def test_a_lifted_relay_comes_back_with_all_that_it_had() -> None:
    async with rig() as made:
        link: Relayed[Relay] = made.relay(Relay)
        link.relay.hold(lease := Lease())
        link.relay.start()
        full = 0
        while not link.relay.client.outbox:
            full += link.backend.fill()
            await trio.sleep(0.001)
        link.relay.lift()
        assert not made.reactor.has(link.relay.client.sock.fileno())
        lease.cut()
        assert link.relay.why is None
        link.relay.hold(lease)
        link.relay.go_on()
        assert len(await link.client.receive(full)) == full
        lease.cut()
        assert link.relay.why is Why.CUT


@pytest.mark.parametrize("at", range(12))
@trio_test(timeout_s=8)
async def test_a_goodbye_after_the_move_waits_for_the_end_of_the_frame_in_hand(at: int) -> None:
    """Cut at each byte of a frame of a fragmented message."""
    first, last = frame(0x02, b"begun", masked=False), frame(0x80, b"ended", masked=False)
    async with rig() as made:
        link: Relayed[Relay] = made.relay(WebSocketRelay)
        link.relay.start()
        both = first + last
        await link.backend.send(both[:at])
        assert await link.client.receive(at) == both[:at]
        moved(made, link, WebSocketRelay)
        relay = link.relay
        assert isinstance(relay, WebSocketRelay)
        lease = Lease()
        lease.drain = DrainSettings(websocket_s=1.0, goodbye_s=1.0)
        relay.hold(lease)
        relay.say_goodbye(trio.current_time() + 1.0)
        told = await link.backend.receive(2)
        assert told[0] == 0x88
        await link.backend.send(both[at:] + close_frame(1001, "", None))
        heard = await link.client.receive(len(both) - at + 2)
        assert heard == both[at:] + b"\x88\x0c"
        assert relay.closed_by == "proxy"


@trio_test(timeout_s=8)
async def test_what_cannot_go_on_elsewhere_is_not_movable() -> None:
    async with rig() as made:
        link: Relayed[Relay] = made.relay(WebSocketRelay)
        link.relay.start()
        assert link.relay.is_movable
        await link.client.send(close_frame(1000, "", b"\0\0\0\0"))
        await link.backend.receive(8)
        assert not link.relay.is_movable
        leaving: Relayed[Relay] = made.relay(WebSocketRelay)
        leaving.relay.start()
        assert isinstance(leaving.relay, WebSocketRelay)
        leaving.relay.say_goodbye(trio.current_time() + 1.0)
        assert not leaving.relay.is_movable
        secure: Relayed[Relay] = made.relay(Relay)
        secure.relay.start()
        secure.relay.backend.sock = Secure(fileno=secure.relay.backend.sock.detach())
        assert not secure.relay.is_movable
        over: Relayed[Relay] = made.relay(Relay)
        over.relay.start()
        over.relay.cut()
        assert not over.relay.is_movable


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (Relay, {"client": MovedSide("no base64!", 0)}),
        (WebSocketRelay, {}),
        (WebSocketRelay, {"from_client": FrameTracker().position}),
    ],
)
@trio_test(timeout_s=8)
async def test_a_value_that_makes_no_sense_is_refused_before_a_byte_moves(
    kind: type[Relay], wrong: dict[str, object]
) -> None:
    waiting = base64.b64encode(b"waits").decode()
    value = MovedRelay(LEASE, MovedSide("", 0), MovedSide(waiting, 5))
    async with rig() as made:
        link: Relayed[Relay] = made.relay(kind)
        with pytest.raises(ValueError, match=r".+"):
            resume(link.relay, replace(value, **wrong))  # type: ignore[arg-type]
        assert not made.reactor.has(link.relay.backend.sock.fileno())
