import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.address import Address
from lbproxy.config import values

READ: list[tuple[Callable[[object], Any], object, object]] = [
    (values.words, "uvicorn app:app --port {port}", ["uvicorn", "app:app", "--port", "{port}"]),
    (values.words, "sh -c 'a b'", ["sh", "-c", "a b"]),
    (values.words, ["a", "b c", ""], ["a", "b c", ""]),
    (values.address, ":8080", Address(port=8080)),
    (values.address, "0.0.0.0:80", Address("0.0.0.0", 80)),
    (values.address, "[::1]:80", Address("::1", 80)),
    (values.address, "localhost:80", Address("localhost", 80)),
    (values.address, "unix:/run/a.sock", Address(path="/run/a.sock")),
    (values.address, "fd:web", Address(passed="web")),
    (values.network, "127.0.0.0/8", "127.0.0.0/8"),
    (values.trusted_proxy, "unix", "unix"),
    (values.trusted_proxy, "10.0.0.7", "10.0.0.7/32"),
    (values.file_mode, "0660", 0o660),
    (values.file_mode, "600", 0o600),
    (values.network, "::1", "::1/128"),
    (values.statuses, "200-399", ((200, 399),)),
    (values.statuses, "200, 204", ((200, 200), (204, 204))),
    (values.statuses, "200", ((200, 200),)),
    (values.port_range, "20000-29999", (20_000, 29_999)),
    (values.surge, 2, (2, False)),
    (values.surge, "100%", (100, True)),
    (values.percentage, "50%", 50),
    (values.percentage, "100%", 100),
    (values.cookie_name, "lb-proxy_1", "lb-proxy_1"),
    (values.stop_signal, "TERM", 15),
    (values.stop_signal, "SIGINT", 2),
    (values.close_code, 1012, 1012),
    (values.close_code, 4999, 4999),
    (values.close_reason, "é" * 61, "é" * 61),
    (values.hash_key, "header:X-User", "header:X-User"),
    (values.hash_key, "cookie:sid", "cookie:sid"),
    (values.upgrade, "Foo/2", "foo/2"),
    (values.route_host, "API.example.com", "api.example.com"),
    (values.route_host, "[::1]", "[::1]"),
    (values.route_path, "/v1/", "/v1/"),
    (values.probe_path, "/healthz?full=1", "/healthz?full=1"),
    (values.count_or_auto, "auto", "auto"),
    (values.count_or_auto, 4, 4),
]

REFUSED: list[tuple[Callable[[object], Any], object, str]] = [
    (values.text, 8, 'expected a string, got 8 (write "8")'),
    (values.text, True, "expected a string, got true"),
    (values.text, "a\0", "a NUL byte cannot stand here"),
    (values.filled, "", "must not be empty"),
    (
        values.label,
        'a"b',
        "expected up to 100 visible ASCII characters without quotes, backslashes and spaces, got 'a\"b'",
    ),
    (values.variable, "A=B", "expected the name of an environment variable, got 'A=B'"),
    (values.upgrade, "a b", "expected a protocol such as \"websocket\", got 'a b'"),
    (values.upgrade, "H2C", "'H2C' never passes: what is said behind it would escape every check of lbproxy"),
    (values.whole(1), 0, "expected a whole number, at least 1, got 0"),
    (values.whole(1), True, "expected a whole number, at least 1, got true"),
    (values.whole(0), 1.5, "expected a whole number, at least 0, got 1.5"),
    (values.whole(0), "7", "expected a whole number, at least 0, got '7' (write 7)"),
    (values.count_or_auto, 0, 'expected a whole number from 1 to 1000 or "auto", got 0'),
    (values.count_or_auto, "4", "expected a whole number from 1 to 1000 or \"auto\", got '4' (write 4)"),
    (values.count_or_auto, ", got", "expected a whole number from 1 to 1000 or \"auto\", got ', got'"),
    (values.words, "echo 'a", "cannot be split into words: no closing quotation"),
    (values.words, "  ", "is empty"),
    (values.words, [], "is empty"),
    (values.words, [""], "is empty"),
    (values.words, 8, "expected a string or a list of strings, got 8"),
    (values.words, ["a", 1], 'expected a string, got 1 (write "1")'),
    (values.placeholders, "{prt}", "unknown placeholder {prt} (did you mean '{port}'?)"),
    (
        values.placeholders,
        "${HOME}",
        "unknown placeholder {HOME} (there is {port} {host} {socket} {fd} {slot} {generation}; "
        "a brace is written {{ or }})",
    ),
    (values.placeholders, "a{", "a single '{' in 'a{' (a brace itself is written '{{')"),
    (values.placeholders, "{{}", "a single '}' in '{{}' (a brace itself is written '}}')"),
    (values.address, "8080", "expected host:port, :port, [v6]:port or unix:/path, got '8080' (write \":8080\")"),
    (values.address, 8080, 'expected host:port, :port, [v6]:port or unix:/path, got 8080 (write ":8080")'),
    (values.address, ":0", "expected a port from 1 to 65535, got ':0'"),
    (values.address, "::1:80", "expected host:port, :port, [v6]:port or unix:/path, got '::1:80' (write \"[::1]:80\")"),
    (values.address, "256.0.0.1:80", "'256.0.0.1' is neither an IP address nor a host name"),
    (
        values.address,
        "http://a:80",
        "expected host:port, :port, [v6]:port or unix:/path, got 'http://a:80' (write \"a:80\")",
    ),
    (values.bound_address, "fd:web", "only a listener can use a passed socket, got 'fd:web'"),
    (values.file_mode, 660, 'expected permissions in octal digits such as "0660", got 660 (write "0660")'),
    (values.file_mode, "4755", "expected permissions in octal digits such as \"0660\", got '4755'"),
    (values.network, "10.0.0.0/33", "expected a network such as 10.0.0.0/8 or an IP address, got '10.0.0.0/33'"),
    (values.network, "10.0.0.1/8", "'10.0.0.1/8' has bits set behind its prefix (write \"10.0.0.0/8\")"),
    (values.statuses, 200, 'expected status codes such as "200-399" or "200,204", got 200 (write "200")'),
    (values.statuses, "399-200", 'expected status codes such as "200-399" or "200,204", got \'399-200\''),
    (values.statuses, "2xx", 'expected status codes such as "200-399" or "200,204", got \'2xx\''),
    (values.port_range, "80-90", "expected a range of ports from 1024 to 65535 such as \"20000-29999\", got '80-90'"),
    (values.port_range, 8080, 'expected a range of ports from 1024 to 65535 such as "20000-29999", got 8080'),
    (values.surge, 0, 'expected a whole number, at least 1, or a percentage such as "100%", got 0'),
    (values.surge, "2", "expected a whole number, at least 1, or a percentage such as \"100%\", got '2' (write 2)"),
    (values.surge, "0%", "expected a whole number, at least 1, or a percentage such as \"100%\", got '0%'"),
    (values.percentage, "0%", 'expected a percentage from "1%" to "100%", got \'0%\''),
    (values.percentage, 50, 'expected a percentage from "1%" to "100%", got 50'),
    (values.percentage, "101%", 'expected a percentage from "1%" to "100%", got \'101%\''),
    (values.cookie_name, "a b", "expected the name of a cookie: letters, digits and !#$%&'*+-.^_`|~, got 'a b'"),
    (values.cookie_name, "a=b", "expected the name of a cookie: letters, digits and !#$%&'*+-.^_`|~, got 'a=b'"),
    (values.cookie_name, 7, "expected the name of a cookie: letters, digits and !#$%&'*+-.^_`|~, got 7"),
    (values.stop_signal, "STOP", "expected HUP, INT, QUIT, KILL, USR1, USR2, TERM or WINCH, got 'STOP'"),
    (values.close_code, 1000, "expected 1001, 1012 or a number from 3000 to 4999, got 1000"),
    (values.close_reason, "é" * 62, "expected at most 123 bytes, got 124"),
    (values.hash_key, "header:", "expected client_ip, path, header:NAME or cookie:NAME, got 'header:'"),
    (
        values.route_host,
        "*.example.com",
        "expected a host name such as \"api.example.com\", without scheme, port or wildcard, got '*.example.com'",
    ),
    (values.route_path, "v1", "expected the beginning of a path such as \"/v1/\", got 'v1'"),
    (values.probe_path, "/a b", "expected a path such as \"/healthz\", got '/a b'"),
]


def name_of(case: object) -> str | None:
    return getattr(case, "__qualname__", None)


@pytest.mark.parametrize(("read", "value", "meant"), READ, ids=name_of)
def test_a_value_is_read_as_it_is_meant(read: Callable[[object], Any], value: object, meant: object):
    assert read(value) == meant


@pytest.mark.parametrize(("read", "value", "message"), REFUSED, ids=name_of)
def test_a_wrong_value_is_told_what_was_expected(read: Callable[[object], Any], value: object, message: str):
    with pytest.raises(ValueError) as caught:
        read(value)
    assert str(caught.value) == message


def test_double_braces_are_no_placeholders():
    assert values.placeholders("{{x}} {port}{slot} {{{host}}}") == ["port", "slot", "host"]


@given(st.text() | st.integers() | st.floats() | st.booleans() | st.lists(st.text() | st.integers()) | st.just({}))
def test_whatever_comes_is_read_or_a_value_error(value: object):
    for read in {read for read, *_ in READ + REFUSED if read is not values.placeholders}:
        with contextlib.suppress(ValueError):
            read(value)


@pytest.mark.parametrize("host", ["app.example.com", "app.example.com:8080", "127.0.0.1", "[::1]:80"])
def test_a_probe_may_name_any_host(host):
    assert values.probe_host(host) == host


@pytest.mark.parametrize("host", ["", "a b", "http://a/", "a/b", "a:0", "a:99999", "ä.example", "a\r\nb: c", 1])
def test_what_cannot_be_a_host_field_is_refused(host):
    with pytest.raises(ValueError):
        values.probe_host(host)


def test_fields_of_a_probe_are_pairs():
    read = values.probe_headers({"X-Probe": "1", "Accept": "text/plain"})
    assert read == (("X-Probe", "1"), ("Accept", "text/plain"))


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"Host": "a"}, "a field that the probe sets itself (write host"),
        ({"content-length": "3"}, "a field that the probe sets itself"),
        ({"X Y": "1"}, "is not the name of a header field"),
        ({"X": "a\r\nb: c"}, "holds what a header field cannot"),
        ({"X": 1}, 'expected a string, got 1 (write "1")'),
        ("X: 1", "expected a table such as { X-Probe"),
    ],
)
def test_what_cannot_be_a_field_of_a_probe_is_refused(headers, said):
    with pytest.raises(ValueError) as caught:
        values.probe_headers(headers)
    assert said in str(caught.value)


def test_true_and_false_are_no_strings():
    assert values.truth(False) is False
    with pytest.raises(ValueError, match=r"expected true or false, got 'False' \(write false\)"):
        values.truth("False")
