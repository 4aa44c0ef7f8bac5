"""A connection that moves: its bytes come back from their text, and the value says how many descriptors go with it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.address import Address
from lbproxy.link.codec import decode, encode
from lbproxy.link.messages import Given, Take, ToControl, ToWorker
from lbproxy.link.moved import (
    MovedClient,
    MovedConnection,
    MovedKind,
    MovedLease,
    MovedRelay,
    MovedSide,
    base64_of,
    bytes_of,
)
from lbproxy.model import BackendId, BackendView

CLIENT = MovedClient("127.0.0.1")
LEASE = MovedLease(BackendView(BackendId("web", 1, 7), Address("127.0.0.1", 20000), 4), 3.5)


@given(data=st.binary(max_size=200))
def test_bytes_come_back_from_their_text_and_pass_the_link(data: bytes) -> None:
    idle = MovedConnection(MovedKind.IDLE, 1, CLIENT, 0.5, received=base64_of(data))
    take = decode(encode(Take(1, idle)), ToWorker)
    assert take == Take(1, idle)
    assert bytes_of(take.moved.received) == data
    assert type(take.moved.kind) is MovedKind


@pytest.mark.parametrize("text", ["a", "====", "äöüß", "YQ==YQ==", "Y Q="])
def test_text_that_is_none_of_ours_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        bytes_of(text)


def test_a_relay_travels_with_two_descriptors_and_an_idle_connection_with_one() -> None:
    relay = MovedRelay(
        LEASE, MovedSide(base64_of(b"to the client"), 7), MovedSide("", 12, has_ended=True, is_shut=True)
    )
    tcp = MovedConnection(MovedKind.TCP, 1, CLIENT, 3.5, relay=relay)
    assert tcp.descriptors == 2
    assert MovedConnection(MovedKind.IDLE, 1, CLIENT, 0.5).descriptors == 1
    assert decode(encode(Given(9, tcp)), ToControl) == Given(9, tcp)
