"""The options that make the kernel ask for a silent peer; how a dead one ends a relay is in relay/test_relay.py."""

import socket

import pytest

from lbproxy.worker.io.dead_peer import notice_dead_peer


@pytest.mark.parametrize(("idle_s", "asked_after"), [(75.0, 38), (1.0, 1), (1e6, 32767)])
def test_the_kernel_asks_after_half_of_the_time_and_within_its_limits(idle_s: float, asked_after: int) -> None:
    with socket.socket() as sock:
        notice_dead_peer(sock, idle_s)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == asked_after
