"""Targets and names of servers, as the file writes them."""

import pytest

from lbproxy.address import Address
from lbproxy.config.targets import server_name, target


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ("127.0.0.1:9000", Address("127.0.0.1", 9000)),
        ("app.internal:80", Address("app.internal", 80)),
        ("unix:/run/app.sock", Address(path="/run/app.sock")),
        ("https://app.internal", Address("app.internal", 443, secure=True)),
        ("https://[::1]:8443", Address("::1", 8443, secure=True)),
        ("https://[::1]", Address("::1", 443, secure=True)),
    ],
)
def test_a_target_is_read_as_it_is_meant(value: str, meant: Address) -> None:
    assert target(value) == meant


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (":9000", "a target needs a host, got ':9000' (write \"127.0.0.1:9000\")"),
        ("fd:web", "only a listener can use a passed socket, got 'fd:web'"),
        ("HTTPS://a:1", "expected https:// in lower case, got 'HTTPS://a:1' (write \"https://a:1\")"),
        ("https://a/", "a target has no path, got 'https://a/' (write \"https://a\")"),
        ("https://a/b", "expected https://host or https://host:port without a path, got 'https://a/b'"),
        ("https://u@a", "expected https://host or https://host:port without a path, got 'https://u@a'"),
        ("https://", "expected https://host or https://host:port, got 'https://'"),
        ("https://:443", "expected https://host or https://host:port, got 'https://:443'"),
        ("https://a:99999", "expected a port from 1 to 65535, got 'a:99999'"),
    ],
)
def test_what_is_no_target_is_told_with_what_would_be(value: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        target(value)
    assert str(caught.value) == message


def test_the_name_of_a_server_is_a_host_without_a_port() -> None:
    assert [server_name(name) for name in ("app.internal", "10.0.0.1", "[::1]", "::1")] == [
        *("app.internal", "10.0.0.1", "::1", "::1")
    ]
    for name in ("a b", "a:80", "", 5):
        with pytest.raises(ValueError):
            server_name(name)
