"""lbproxy/address.py: what is an address, and what is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.address import Address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (":8080", Address("", 8080)),
        ("0.0.0.0:80", Address("0.0.0.0", 80)),
        ("localhost:0", Address("localhost", 0)),
        ("[::1]:8080", Address("::1", 8080)),
        ("unix:/run/lb.sock", Address(path="/run/lb.sock")),
        ("unix:run/lb.sock", Address(path="run/lb.sock")),
        ("fd:web", Address(passed="web")),
        ("fd:0", Address(passed="0")),
    ],
)
def test_every_spelling_is_understood_and_written_back(text: str, address: Address) -> None:
    assert Address.parse(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    "text", ["", "8080", "localhost", "localhost:", "localhost:http", "a:-1", "a:+1", "a:٣", "a: 1"]
)
def test_a_port_is_a_plain_number_up_to_65535(text: str) -> None:
    with pytest.raises(ValueError, match="expected host:port"):
        Address.parse(text)


def test_a_port_over_65535_is_refused_with_the_range() -> None:
    assert Address.parse("a:65535") == Address("a", 65535)
    with pytest.raises(ValueError, match="expected a port from 1 to 65535"):
        Address.parse("a:65536")


def test_ipv6_without_brackets_is_refused_with_the_right_spelling() -> None:
    with pytest.raises(ValueError, match="in brackets"):
        Address.parse("::1:8080")


def test_a_unix_path_has_a_length_that_the_kernel_takes() -> None:
    assert Address.parse("unix:" + "a" * 107).path == "a" * 107
    with pytest.raises(ValueError, match="107 bytes"):
        Address.parse("unix:" + "é" * 54)
    with pytest.raises(ValueError, match="needs a path"):
        Address.parse("unix:")


@pytest.mark.parametrize("text", ["fd:", "fd:a b", "fd:a:b", "fd:\n"])
def test_a_passed_socket_has_a_name_without_colons_and_spaces(text: str) -> None:
    with pytest.raises(ValueError, match="needs its name or number"):
        Address.parse(text)


@given(st.text())
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    try:
        address = Address.parse(text)
    except ValueError:
        return
    assert Address.parse(str(address)) == address
