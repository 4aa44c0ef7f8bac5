"""TLS on [admin]: control makes the handshake itself, with the certificates that are in use when a client comes.

Knows streams and certificates. Does not know HTTP, but for the sentence that plain HTTP gets.
"""

import socket
from typing import Any

import trio

from lbproxy.certificates.certificate_set import CertificateSet
from lbproxy.control.api_server import Declined
from lbproxy.settings import TlsSettings
from lbproxy.tls.contexts import Pair, ServerContexts, ServerRules

_HANDSHAKE = b"\x16"  # the first byte of a TLS client (RFC 8446, 5.1)


class AdminTls:
    """The contexts of the newest set, made when a client comes."""

    def __init__(self) -> None:
        self._made: tuple[CertificateSet, TlsSettings, ServerContexts] | None = None

    async def handshake(
        self, connection: trio.socket.SocketType, tls: TlsSettings, found: CertificateSet
    ) -> trio.abc.Stream:
        """Raises Declined for a client that does not speak TLS, and trio.BrokenResourceError for one that gives up."""
        first = await connection.recv(1, socket.MSG_PEEK)
        if first != _HANDSHAKE:
            if not first:
                raise trio.BrokenResourceError
            raise Declined(400, "this port speaks HTTPS, and the request came as plain HTTP")
        if self._made is None or self._made[:2] != (found, tls):
            self._made = found, tls, await trio.to_thread.run_sync(_contexts, tls, found)
        stream = trio.SSLStream(trio.SocketStream(connection), self._made[2].first, server_side=True)
        await stream.do_handshake()
        return stream


def _contexts(tls: TlsSettings, found: CertificateSet) -> ServerContexts:
    """Runs in a thread: it takes some milliseconds for each certificate."""
    pairs = [Pair(pair.chain.fileno(), pair.key.fileno(), pair.leaf.names) for pair in found.pairs]
    client_ca = found.client_ca.file.fileno() if found.client_ca is not None else None
    contexts = ServerContexts(pairs, client_ca)
    contexts.follow(ServerRules(("http/1.1",), tls.min_version, tls.client_auth))

    def choose(connection: Any, name: str | None, _: Any) -> None:
        connection.context = contexts.named(name)

    contexts.first.sni_callback = choose
    return contexts
