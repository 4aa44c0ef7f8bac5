"""The facts of each peer of a listener: its address, and whether the listener believes it.

Remembers peers that came. Made anew with every table, because the settings decide. Knows no socket.
"""

from ipaddress import ip_address

from lbproxy.settings import ListenerSettings
from lbproxy.wire.forwarded import Trust, unmapped
from lbproxy.wire.headers import ClientFacts

REMEMBERED_PEERS = 4096


class Peers:
    def __init__(self, settings: ListenerSettings) -> None:
        self._trust = Trust(settings.trusted_proxies)
        self._proto = b"http" if settings.tls is None else b"https"
        self._writes_forwarded = settings.forwarded
        self._known: dict[str, ClientFacts] = {}

    def facts(self, peer: tuple[str, int] | str | bytes) -> ClientFacts:
        """`peer`: as accept() names it. Raises ValueError for a host that is no address."""
        host = peer[0] if isinstance(peer, tuple) else ""  # unix: a path, or bytes for a name without one
        facts = self._known.get(host)
        if facts is None:
            if len(self._known) >= REMEMBERED_PEERS:
                self._known.clear()
            ip = str(unmapped(ip_address(host.partition("%")[0]))).encode() if host else b""
            trusted = self._trust.believes(ip)
            facts = ClientFacts(ip, trusted, self._proto, writes_forwarded=self._writes_forwarded, trust=self._trust)
            self._known[host] = facts
        return facts
