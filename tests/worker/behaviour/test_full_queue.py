"""A backend whose accept queue is full: it is busy, not dead. Requests wait a moment, go elsewhere, and come back."""

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from support.proxy import GET, LANES, OK, Proxy, Setup, answering, lanes, never_answering, proxy
from support.trio_test import trio_test

from lbproxy.address import Address
from lbproxy.link.messages import Unreachable
from lbproxy.settings import PoolTimeouts

SETUP = Setup(pool_timeouts=PoolTimeouts(connect_s=0.2), balance="round_robin")


@contextmanager
def full_queue(kind: str, directory: Path) -> Iterator[tuple[Address, socket.socket]]:
    """A socket that listens and takes no further connection."""
    unix = kind == "unix"
    with closing(socket.socket(socket.AF_UNIX if unix else socket.AF_INET)) as listening:
        listening.bind(str(directory / "app.sock") if unix else ("127.0.0.1", 0))
        listening.listen(1)
        name = listening.getsockname()
        waiting = [socket.socket(listening.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) for _ in range(4)]
        for one in waiting:
            one.connect_ex(name)
        yield Address("", 0, name) if unix else Address(*name), listening
        for one in waiting:
            one.close()


def assert_not_blamed(lb: Proxy) -> None:
    assert not [message for message in lb.posted if isinstance(message, Unreachable)]


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("kind", ["tcp", "unix"])
@trio_test(timeout_s=8)
async def test_requests_go_elsewhere_and_control_is_not_told_that_it_refused(
    lane: str, kind: str, tmp_path: Path
) -> None:
    with full_queue(kind, tmp_path) as (address, _):
        async with proxy(lane, never_answering, answering(OK), setup=SETUP) as lb:
            lb.backends[0].address = address
            lb.publish(0, 1)
            began = trio.current_time()
            for _ in range(4):
                assert (await lb.ask(GET)).status == 200
            took_s = trio.current_time() - began
            assert took_s < 0.8  # at most one of them has waited, then it was passed over
            assert kind == "unix" or took_s >= 0.2
            assert_not_blamed(lb)


@lanes
@trio_test(timeout_s=8)
async def test_a_request_is_served_when_the_only_backend_has_room_again(lane: str, tmp_path: Path) -> None:
    setup = replace(SETUP, pool_timeouts=PoolTimeouts(connect_s=0.1))
    with full_queue("unix", tmp_path) as (address, listening):
        async with proxy(lane, never_answering, setup=setup) as lb:
            lb.backends[0].address = address
            lb.publish(0)
            async with trio.open_nursery() as nursery:

                async def accept_later() -> None:
                    await trio.sleep(0.3)
                    listening.setblocking(False)
                    with trio.socket.from_stdlib_socket(listening.dup()) as accepting:
                        while True:
                            sock, _ = await accepting.accept()
                            nursery.start_soon(answer, sock)

                async def answer(sock: trio.socket.SocketType) -> None:
                    with sock:
                        if await sock.recv(4096):
                            await sock.send(OK)

                nursery.start_soon(accept_later)
                assert (await lb.ask(GET)).status == 200
                nursery.cancel_scope.cancel()
            assert_not_blamed(lb)
