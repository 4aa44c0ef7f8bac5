"""The PROXY header that a backend gets before the first byte, where its pool has `send_proxy` (CONTRACT.md 2).

Knows the client's socket and its facts. A connection that begins with a header is this client's alone: see
BackendConnections.share.
"""

import socket
from ipaddress import ip_address

from lbproxy.wire.forwarded import unmapped
from lbproxy.wire.headers import ClientFacts
from lbproxy.wire.proxy_protocol import Endpoint, proxy_header


def announcement(version: str, client: socket.socket, facts: ClientFacts, ip: bytes) -> bytes:
    """`ip`: who the client is: its peer, or what a trusted one says. The destination is the listener's own address.

    The port is 0 where nobody knows it: of a client that X-Forwarded-For names.
    """
    if not ip:
        return proxy_header(version, None, None)
    source, peer = Endpoint(ip.decode(), 0), _endpoint(client, is_peer=True)
    if ip == facts.ip and facts.port:
        source = Endpoint(source.ip, facts.port)
    elif peer is not None and peer.ip == source.ip:
        source = peer
    return proxy_header(version, source, _endpoint(client, is_peer=False))


def _endpoint(sock: socket.socket, *, is_peer: bool) -> Endpoint | None:
    """None: of a unix socket, or of one whose client has left."""
    try:
        name = sock.getpeername() if is_peer else sock.getsockname()
    except OSError:
        return None
    if not isinstance(name, tuple):
        return None
    return Endpoint(str(unmapped(ip_address(name[0].partition("%")[0]))), name[1])
