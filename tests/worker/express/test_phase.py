"""The whole product of phases and events, on real sockets: every phase is brought about, then every event happens."""

import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio
import trio.testing
from support.peer import Ended, Peer
from support.proxy import GET, Proxy, Setup, get, post, proxy, wait_until
from support.trio_test import trio_test

from lbproxy.settings import DrainSettings, ListenerTimeouts, PoolTimeouts
from lbproxy.worker.express import request
from lbproxy.worker.express.client import ExpressClient
from lbproxy.worker.express.phase import (
    AWAY,
    BACKEND_FULL,
    BODY,
    CLIENT_FULL,
    CONNECTING,
    DOWNLOADING,
    EVENTS,
    HEAD,
    IDLE,
    PHASES,
    UPLOADING,
    WAITING,
    Phase,
    diagram,
)
from lbproxy.worker.io.reactor import READ, WRITE

PART = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart"
LONG = b"HTTP/1.1 200 OK\r\nContent-Length: 67108864\r\n\r\n" + bytes(8 << 20)
REASONS = {"refuse_slow_head": "slow_head", "connect_too_slow": "connect", "connect_refused": "connect"}
SHORT_S = 0.25
NAMES = [phase.name for phase in PHASES]


class Scene:
    """A connection in the phase, and both of its peers."""

    def __init__(self, lb: Proxy, client: Peer, phase: Phase) -> None:
        self.lb = lb
        self.client = client
        self.phase = phase
        (self.record,) = lb.lanes._records
        self.before = dict(lb.lanes.handed_over)

    @property
    def handed_over(self) -> dict[str, int]:
        now = self.lb.lanes.handed_over
        return {why: now[why] - self.before.get(why, 0) for why in now if now[why] != self.before.get(why, 0)}


@asynccontextmanager
async def scene(phase: Phase, event: str, patch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    """`phase` for real; only its own limit is short, and only if that is the event."""

    async def script(peer: Peer) -> None:
        if phase is BACKEND_FULL:
            await go_on.wait()
        elif phase is DOWNLOADING or phase is CLIENT_FULL:
            await peer.head()
            await peer.send(PART if phase is DOWNLOADING else LONG)
        await peer.wait_ended()

    go_on = trio.Event()
    async with proxy("express", script, setup=setup_of(phase, event)) as lb, trio.open_nursery() as nursery:
        client = await lb.client(receive_bytes=4096 if phase is CLIENT_FULL else 0)
        await wait_until(lambda: lb.lanes.connections == 1)
        nowhere = []
        if phase is CONNECTING:
            nowhere = _full_queue()
            patch.setattr(request, "begin_connect", lambda address: _begun(nowhere[0].getsockname()))
        nursery.start_soon(_send, client, ASKED[phase])
        try:
            await wait_until(lambda: all(getattr(one, "phase", None) is phase for one in lb.lanes._records))
            await trio.testing.wait_all_tasks_blocked(0.02)
            made = Scene(lb, client, phase)
            if phase is CONNECTING and event == "backend_gone":
                nowhere[0].close()  # what is begun is refused when the handshake is tried once more
            yield made
            patch.undo()
            go_on.set()
            client.close()
            for peer in lb.backends[0].peers:
                peer.close()
            nursery.cancel_scope.cancel()
        finally:
            for sock in nowhere:
                sock.close()


ASKED = {
    IDLE: b"",
    HEAD: GET[:-4],
    BODY: post(b"abcdef")[:-3],
    CONNECTING: GET,
    WAITING: GET,
    UPLOADING: post(bytes(200_000))[:-1000],
    BACKEND_FULL: post(bytes(32 << 20)),
    DOWNLOADING: GET,
    CLIENT_FULL: GET,
    AWAY: get(b"/", b"Expect: 100-continue"),
}


def setup_of(phase: Phase, event: str) -> Setup:
    owner, _, name = phase.limit.rpartition(".")
    short = {name: SHORT_S} if event == "over" and phase.limit else {}
    of_listener = owner.startswith("view")
    return Setup(
        timeouts=ListenerTimeouts(**(short if of_listener else {})),
        pool_timeouts=PoolTimeouts(**{"keepalive_s": 30.0, **({} if of_listener else short)}),
        drain=DrainSettings(request_s=0.0, transfer_s=0.0) if event == "cut" else DrainSettings(),
        send_bytes=4096 if phase is CLIENT_FULL else 0,
    )


async def _send(client: Peer, data: bytes) -> None:
    with suppress(Ended):
        await client.send(data)


def _full_queue() -> list[socket.socket]:
    """A listening socket with no room in its queue: who connects to it waits."""
    full = socket.create_server(("127.0.0.1", 0), backlog=0)
    return [full, *(_begun(full.getsockname()) for _ in range(4))]


def _begun(address: tuple[str, int]) -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    sock.connect_ex(address)
    return sock


def happen(made: Scene, event: str) -> None:
    lb = made.lb
    if event == "client_gone":
        made.client.reset() if made.phase is BACKEND_FULL else made.client.close()
    elif event == "backend_gone":
        for peer in lb.backends[0].peers:
            peer.close()
    elif event == "cut":
        lb.publish()
    elif event == "stop":
        lb.lanes.stop(30.0)
    # "over": time passes


async def wait_outcome(made: Scene, event: str) -> None:
    """Until what the table says of it has come about."""
    lb, action = made.lb, getattr(made.phase, event)
    if action.method == "go_on":
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert made.phase is AWAY or made.record.phase is made.phase  # type: ignore[union-attr]
        assert not made.handed_over
    elif action.method in ("close", "close_if_silent", "on_deadline"):
        await wait_until(lambda: not lb.lanes.connections)
        assert not lb.records
        assert not made.handed_over
    elif action.method in ("abandon", "cut_short"):
        if made.phase is CLIENT_FULL and event == "backend_gone":  # seen when the client has taken what there was
            with suppress(Ended):
                await made.client.rest()
        (record,) = await lb.wait_records(1)
        assert record.error == (action.argument or "client_gone")
        assert record.status == (200 if made.phase in (DOWNLOADING, CLIENT_FULL) else 499)
        assert not made.handed_over
    else:
        why = action.argument or REASONS[action.method]
        await wait_until(lambda: made.handed_over == {why: 1})


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("phase", PHASES, ids=NAMES)
@trio_test(timeout_s=12)
async def test_every_event_in_every_phase_does_what_the_table_says(
    phase: Phase, event: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene(phase, event, monkeypatch) as made:
        happen(made, event)
        await wait_outcome(made, event)


@pytest.mark.parametrize("phase", PHASES, ids=NAMES)
@trio_test(timeout_s=8)
async def test_what_is_registered_is_what_the_table_says(phase: Phase, monkeypatch: pytest.MonkeyPatch) -> None:
    async with scene(phase, "none", monkeypatch) as made:
        record = made.record
        assert isinstance(record, ExpressClient)
        registered = masks_of(made.lb)
        assert registered.get(record.fd, 0) == phase.client == record.client_events
        if record.connection is not None:
            assert registered.get(record.connection.fd, 0) == phase.backend
        else:
            assert not phase.backend
        armed = record.deadline != float("inf")
        assert armed == bool(phase.limit)


def masks_of(lb: Proxy) -> dict[int, int]:
    """By descriptor: for what the kernel's epoll watches it. Errors and hang-ups it always does."""
    with open(f"/proc/self/fdinfo/{lb.reactor._epoll.fileno()}") as lines:
        found = re.findall(r"^tfd:\s*(\d+) events:\s*([0-9a-f]+)", lines.read(), re.MULTILINE)
    return {int(fd): int(mask, 16) & (READ | WRITE) for fd, mask in found}


@pytest.mark.parametrize(
    ("phase", "expected"),
    [
        (IDLE, "idle, no lease, body bytes: 0 in, 0 out, buffered: 0 received"),
        (HEAD, f"head, no lease, body bytes: 0 in, 0 out, buffered: {len(GET) - 4} received"),
        (WAITING, r"waiting, web.1@1 \(request\), body bytes: 0 in, 0 out"),
        (DOWNLOADING, r"downloading, web.1@1 \(transfer\), body bytes: 0 in, 4 out"),
    ],
    ids=["idle", "head", "waiting", "downloading"],
)
@trio_test(timeout_s=8)
async def test_a_connection_prints_where_it_stands(
    phase: Phase, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene(phase, "none", monkeypatch) as made:
        assert re.search(expected, repr(made.record))


@trio_test(timeout_s=8)
async def test_connections_are_counted_by_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    async with scene(WAITING, "none", monkeypatch) as made:
        for _ in range(3):
            await made.lb.client()
        await wait_until(lambda: made.lb.lanes.connections == 4)
        assert made.lb.lanes.phases() == {"idle": 3, "waiting": 1}


def test_every_action_of_the_table_is_a_function_of_the_record() -> None:
    for phase in PHASES:
        named: list[Any] = [action.method for _, action in phase.actions()]
        named += [name for name in (phase.on_client, phase.on_backend) if name]
        assert all(callable(getattr(ExpressClient, name)) for name in named)


def test_the_diagram_of_phases_shows_every_row_of_the_table() -> None:
    text = diagram()
    for phase in PHASES:
        _, _, block = text.partition(f"\n{phase.name}: waits for " if phase is not IDLE else "idle: waits for ")
        lines = block.split("\n")[: len(EVENTS) + 2]
        assert lines[0] == phase.waits_for
        assert [line.split("-> ")[1] for line in lines[2:]] == [action.says for _, action in phase.actions()]
