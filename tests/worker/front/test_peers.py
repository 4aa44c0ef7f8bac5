"""Who connects, and whether it is believed."""

import pytest

from lbproxy.address import Address
from lbproxy.settings import ListenerSettings
from lbproxy.worker.front.peers import REMEMBERED_PEERS, Peers


def peers(*trusted: str) -> Peers:
    return Peers(ListenerSettings("public", Address(port=80), trusted_proxies=trusted))


@pytest.mark.parametrize(
    ("peer", "ip", "trusted"),
    [
        (("192.0.2.7", 1), b"192.0.2.7", False),
        (("10.1.2.3", 1), b"10.1.2.3", True),
        (("::ffff:10.1.2.3", 1, 0, 0), b"10.1.2.3", True),
        (("::ffff:192.0.2.7", 1, 0, 0), b"192.0.2.7", False),
        (("2001:db8::1", 1, 0, 0), b"2001:db8::1", False),
        (("fe80::1%eth0", 1, 0, 2), b"fe80::1", True),
        ("", b"", False),
        ("/run/client.sock", b"", False),
        (b"\0abstract", b"", False),
    ],
)
def test_a_peer_is_known_by_its_address(peer: tuple[str, int] | str | bytes, ip: bytes, trusted: bool) -> None:
    listener = peers("10.0.0.0/8", "fe80::/10")
    for _ in range(2):
        facts = listener.facts(peer)
        assert (facts.ip, facts.trusted, facts.proto) == (ip, trusted, b"http")
        assert listener.facts(peer) is facts


def test_the_peers_of_a_unix_listener_are_trusted_where_it_says_unix() -> None:
    assert peers("unix").facts("").trusted
    assert not peers("unix").facts(("127.0.0.1", 1)).trusted


def test_as_many_peers_are_remembered_as_there_is_room_for() -> None:
    listener = peers()
    first = listener.facts(("10.0.0.1", 1))
    for number in range(REMEMBERED_PEERS - 1):
        listener.facts((f"10.1.{number // 256}.{number % 256}", 1))
    assert listener.facts(("10.0.0.1", 2)) is first
    listener.facts(("10.2.0.1", 1))
    assert listener.facts(("10.0.0.1", 3)) == first
    assert listener.facts(("10.0.0.1", 3)) is not first
