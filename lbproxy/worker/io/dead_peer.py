"""Keepalive: how a peer that vanished without a word is noticed. Knows one socket and a time."""

import socket


def notice_dead_peer(sock: socket.socket, idle_s: float) -> None:
    """Set keepalive probes: a peer that vanished silently is noticed within about `idle_s` of silence.

    Accepted sockets inherit this from the listening socket, where it costs nothing per connection. (TCP_USER_TIMEOUT
    would also end a live peer that does not read for so long.)
    """
    if sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _seconds(idle_s / 2))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _seconds(idle_s / 8))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)


def _seconds(seconds: float) -> int:
    """Whole seconds from 1 to 32767, as the kernel takes them."""
    return min(max(1, round(seconds)), 32767)
