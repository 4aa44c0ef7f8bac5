"""Who the client is behind trusted proxies."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis.strategies import binary, builds, lists, sampled_from

from lbproxy.wire.forwarded import Hop, Trust, address_of, hops_of, node_of, nodes_of, spell

TRUST = Trust(("10.0.0.0/8", "fd00::/8", "unix"))


@pytest.mark.parametrize(
    ("node", "address"),
    [
        (b"192.0.2.7", b"192.0.2.7"),
        (b"192.0.2.7:4711", b"192.0.2.7"),
        (b"192.0.2.7:_port", b"192.0.2.7"),
        (b"2001:DB8:0::7", b"2001:db8::7"),
        (b"[2001:db8::7]", b"2001:db8::7"),
        (b"[2001:db8::7]:80", b"2001:db8::7"),
        (b"::ffff:192.0.2.7", b"192.0.2.7"),
        (b"fe80::1%eth0", b"fe80::1"),
        (b"192.0.2.7:", None),
        (b"192.0.2", None),
        (b"192.0.2.07", None),
        (b"[192.0.2.7]:80", None),
        (b"[2001:db8::7", None),
        (b"unknown", None),
        (b"_hidden", None),
        (b"", None),
        (b"localhost", None),
        (b"\xd9\xa3.1.1.1", None),
    ],
)
def test_a_node_has_an_address_or_none(node: bytes, address: bytes | None) -> None:
    assert address_of(node) == address


@pytest.mark.parametrize(
    ("chain", "client"),
    [
        ([b"192.0.2.7"], b"192.0.2.7"),
        ([b"192.0.2.7:567, 10.0.0.1"], b"192.0.2.7"),
        ([b"[2001:db8::7]:80"], b"2001:db8::7"),
        # Spoofed in front: by the client, who can write whatever it likes there.
        ([b"10.0.0.9, 1.1.1.1, 192.0.2.7, 10.0.0.1, fd00::1"], b"192.0.2.7"),
        ([b"<script>, 192.0.2.7"], b"192.0.2.7"),
        # Several lines are one list.
        ([b"1.1.1.1", b"192.0.2.7", b"10.0.0.1"], b"192.0.2.7"),
        ([b"1.1.1.1,192.0.2.7,", b",, 10.0.0.1 ,"], b"192.0.2.7"),
        # Only trusted ones: the one that is furthest away.
        ([b"10.0.0.3, 10.0.0.2"], b"10.0.0.3"),
        # What is no address ends the chain: the proxy that wrote it is the last one that is known.
        ([b"192.0.2.7, garbage, 10.0.0.1"], b"10.0.0.1"),
        ([b"192.0.2.7, unknown"], b"10.9.9.9"),
        ([b""], b"10.9.9.9"),
        ([b" , ,"], b"10.9.9.9"),
    ],
)
def test_the_client_is_the_right_most_address_that_is_not_trusted(chain: list[bytes], client: bytes) -> None:
    for _ in range(2):
        assert TRUST.client_of(b"10.9.9.9", chain) == client
    assert TRUST.find(nodes_of(chain), b"10.9.9.9")[0] == client


@given(lists(sampled_from([b"10.0.0.1", b"fd00::1", b"10.0.0.2:80"])), lists(binary(max_size=8)))
def test_no_client_can_write_itself_another_address(trusted: list[bytes], spoofed: list[bytes]) -> None:
    chain = b", ".join([*spoofed, b"192.0.2.7", *trusted])
    assert TRUST.client_of(b"10.9.9.9", [chain]) == b"192.0.2.7"


def test_the_memory_of_chains_is_bounded() -> None:
    trust = Trust(("10.0.0.0/8",))
    for number in range(10_000):
        ip = str(ip_address(0x0B000000 + number)).encode()
        assert trust.client_of(b"10.0.0.1", [ip]) == ip
    assert len(trust._chains) <= 4096
    assert len(trust._known) <= 4096


def test_unix_peers_are_trusted_by_name() -> None:
    assert TRUST.believes(b"")
    assert not Trust(("0.0.0.0/0", "::/0")).believes(b"")


@pytest.mark.parametrize(
    ("text", "hops"),
    [
        (b"for=192.0.2.7", [Hop(b"192.0.2.7")]),
        (
            b'For="[2001:db8:cafe::17]:4711";proto=HTTPS; host="a.example:8080" ;by=_gate, for=unknown',
            [
                Hop(b"[2001:db8:cafe::17]:4711", b"a.example:8080", b"HTTPS", ((b"by", b"_gate"),)),
                Hop(b"unknown"),
            ],
        ),
        (b"for=[2001:db8::1]", [Hop(b"[2001:db8::1]")]),  # without its quotes: what is meant is plain
        (rb'for="_a\"b";ext="\\"', [Hop(b'_a"b', others=((b"ext", b"\\"),))]),
        (b"for=a;;proto=http,,", [Hop(b"a", proto=b"http")]),
        (b'for="a,b;c"', [Hop(b"a,b;c")]),
        (b"", []),
        (b'for="192.0.2.7', None),
        (b"for=192.0.2.7;for=192.0.2.8", None),
        (b"for", None),
        (b"for=", None),
        (b"for =a", None),
        (b'for=a"b"', None),
        (b"for=a b", None),
        (b"for=a;host=a/b", None),
        (b'for=a;proto="x, y"', None),
        (b"192.0.2.7, 10.0.0.1", None),
        (b" " * 20_000 + b"x", None),
    ],
)
def test_forwarded_is_read_as_rfc_7239_has_it(text: bytes, hops: list[Hop] | None) -> None:
    assert hops_of([text]) == hops


def test_forwarded_in_several_lines_is_one_list() -> None:
    assert hops_of([b"for=a", b"for=b"]) == [Hop(b"a"), Hop(b"b")]
    assert hops_of([b'for="a', b'b"']) == [Hop(b"a,b")]  # nothing of ours can be drawn into its quotes: it is respelt


values = binary(max_size=12).filter(lambda value: bool(value) and not set(value) & {*range(9), *range(10, 32), 127})
hops = builds(
    lambda node, named, others: Hop(node, *named, tuple(others.items())),
    values,
    sampled_from([(b"", b""), (b"a.example:80", b"https"), (b"[::1]", b"http")]),
    sampled_from([{}, {b"by": b"_x"}, {b"by": b'"', b"secret": b"\\"}]),
)


@given(lists(hops, max_size=4))
def test_what_is_spelt_is_read_again(some: list[Hop]) -> None:
    assert hops_of([spell(some)]) == some


@given(binary(max_size=60))
def test_whatever_is_read_is_spelt_so_that_it_is_read_alike(text: bytes) -> None:
    read = hops_of([text])
    if read is not None:
        assert hops_of([spell(read)]) == read


@pytest.mark.parametrize(
    ("ip", "node"),
    [
        (b"192.0.2.7", b"192.0.2.7"),
        (b"2001:db8::7", b"[2001:db8::7]"),
        (b"", b"unknown"),
        (b"_hidden", b"_hidden"),
        (b"x y", b"unknown"),
    ],
)
def test_an_address_as_forwarded_has_it(ip: bytes, node: bytes) -> None:
    assert node_of(ip) == node
