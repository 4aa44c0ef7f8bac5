"""Field lines: grammar, meaning, and the bounded memory."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.each import each
from support.http_corpus import BAD_FIELD_LINES, BAD_LENGTHS

from lbproxy.wire.lines import (
    MOST_PASSES,
    PASSED,
    Kind,
    Lines,
    Refused,
    check_host,
    fold_length,
    impersonates,
    members,
    split_field,
)


@each(line for _, line in BAD_FIELD_LINES if b"\r\n" not in line)
def test_a_bad_line_is_refused_with_a_reason_and_not_remembered(line):
    lines = Lines()
    with pytest.raises(Refused) as caught:
        lines.learn_request(line)
    assert caught.value.status == 400
    assert len(caught.value.reason) > 10
    with pytest.raises(Refused) as caught:
        lines.learn_response(line)
    assert caught.value.status == 502
    assert not lines.requests
    assert not lines.responses


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"A : b", "a blank before the colon of a field"),
        (b" A: b", "a field line begins with a blank (obsolete folding)"),
        (b"A", "a field line without a colon"),
        (b": b", "a field without a name"),
        (b"A(: b", "a field name is not a token"),
        (b"A: b\x00", "a control byte in a field value"),
        (b"A: b\nC: d", "a line ends in a bare CR or LF"),
        (b"", "an empty line inside a head"),
    ],
)
def test_the_reason_names_the_mistake(line, reason):
    with pytest.raises(ValueError) as caught:
        split_field(line)
    assert str(caught.value) == reason


def test_a_plain_line_means_nothing_and_a_sloppy_one_is_respelt():
    lines = Lines()
    assert lines.learn_request(b"X-Any: thing") is None
    assert lines.learn_request(b"X-Any:thing \t") == (Kind.RESPELT, b"x-any", b"thing", b"X-Any: thing")
    assert lines.learn_request(b"X-Empty: ") == (Kind.RESPELT, b"x-empty", b"", b"X-Empty:")
    assert lines.learn_request(b"X-Empty:") is None
    assert lines.requests[b"X-Any: thing"] is None


@pytest.mark.parametrize(
    ("line", "kind", "value"),
    [
        (b"HOST:a.b", Kind.HOST, b"a.b"),
        (b"Content-Length: 3, 3", Kind.LENGTH, b"3"),
        (b"Connection: Keep-Alive", Kind.KEEP_ALIVE, b"Keep-Alive"),
        (b"Connection: keep-alive, X", Kind.CONNECTION, b"keep-alive, X"),
        (b"X-Forwarded-Anything: 1", Kind.ASIDE, b"1"),
        (b"x_forwarded_anything: 1", Kind.DROPPED, b"1"),
        (b"X_Forwarded-For: 1", Kind.DROPPED, b"1"),
        (b"Content_Length: 1", Kind.DROPPED, b"1"),
        (b"Proxy: 1", Kind.DROPPED, b"1"),
        (b"X-Client-Cert-Subject: CN=root", Kind.DROPPED, b"CN=root"),
        (b"x-client_cert-VERIFIED: 1", Kind.DROPPED, b"1"),
        (b"Client-Cert: :MII=:", Kind.DROPPED, b":MII=:"),
        (b"CLIENT_CERT: :MII=:", Kind.DROPPED, b":MII=:"),
        (b"client-cert-chain: :MII=:", Kind.DROPPED, b":MII=:"),
        (b"User-Agent: x", Kind.NOTED, b"x"),
    ],
)
def test_a_line_of_a_request_means_what_its_name_says(line, kind, value):
    entry = Lines().learn_request(line)
    assert entry is not None
    assert (entry[0], entry[2]) == (kind, value)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b"Content-Type: text/html", None),
        (b"Content-Type: Text/Event-Stream ;charset=utf-8", Kind.EVENT_STREAM),
        (b"Content-Encoding: identity", None),
        (b"Content-Encoding: gzip", Kind.ENCODED),
        (b"Host: not a host", None),
        (b"X-Forwarded-For: a", None),
        (b"Keep-Alive: timeout=5", Kind.DROPPED),
    ],
)
def test_the_same_name_may_mean_less_in_a_response(line, kind):
    entry = Lines().learn_response(line)
    assert (entry and entry[0]) == kind


@pytest.mark.parametrize(
    "value", [b"", b" a", b"a ", b"\ta", b"a\t", b"a b", b"\xe4", b"a\x00", b"a\n", b"\x7f", b"a:  b"]
)
@pytest.mark.parametrize("name", [b"X-Any", b"Cookie", b"Date", b"Content-Type"])
def test_a_name_that_is_known_to_be_plain_changes_no_verdict(name, value):
    def verdict(lines, learn):
        try:
            return getattr(lines, learn)(name + b": " + value)
        except Refused as refused:
            return refused.reason

    warm = Lines()
    assert warm.learn_request(name + b": x") is None
    assert warm.learn_response(name + b": x") is None
    for learn in ("learn_request", "learn_response"):
        assert verdict(warm, learn) == verdict(Lines(), learn)


def test_a_request_that_goes_round_in_a_circle_is_refused():
    lines = Lines()
    entry = lines.learn_request(b"Via: " + b", ".join([PASSED] * MOST_PASSES))
    assert entry is not None
    assert entry[:2] == (Kind.ASIDE, b"via")
    with pytest.raises(Refused) as caught:
        lines.learn_request(b"Via: " + b", ".join([PASSED] * (MOST_PASSES + 1)))
    assert (caught.value.status, caught.value.token) == (502, "proxy_loop_detected")


def test_an_empty_value_makes_no_name_of_its_line():
    for learn in (Lines().learn_request, Lines().learn_response):
        assert learn(b"A:") is None
        assert learn(b"A:: x") == (Kind.RESPELT, b"a", b": x", b"A: : x")


def test_a_content_type_is_looked_at_again_each_time():
    lines = Lines()
    assert lines.learn_response(b"Content-Type: text/html") is None
    entry = lines.learn_response(b"Content-Type: text/event-stream")
    assert entry is not None
    assert entry[0] == Kind.EVENT_STREAM


def test_names_that_only_look_like_ours_are_known():
    assert impersonates(b"x_real_ip")
    assert impersonates(b"transfer_encoding")
    assert not impersonates(b"x-real-ip")
    assert not impersonates(b"user_agent")


def test_the_memory_is_bounded_in_lines_and_keeps_no_long_line():
    lines = Lines(max_lines=10, max_line_bytes=40)
    for number in range(1000):
        for _ in range(2):  # what comes twice in a row is remembered
            lines.learn_request(b"X: %d" % number)
            lines.learn_response(b"X: %d" % number)
            lines.keep_start(b"GET /%d HTTP/1.1" % number, (b"GET", b"/", None, 1))
        lines.keep_status(b"HTTP/1.1 200 %d" % number, (200, b"", 1))
        for memory in (lines.requests, lines.responses, lines.starts, lines.statuses):
            assert 1 <= len(memory) <= 10
    lines.learn_request(b"X: " + b"a" * 100)
    lines.keep_start(b"GET /" + b"a" * 100, (b"GET", b"/", None, 1))
    lines.keep_status(b"HTTP/1.1 200 " + b"a" * 100, (200, b"", 1))
    assert all(len(line) <= 40 for line in (*lines.requests, *lines.starts, *lines.statuses))


@pytest.mark.parametrize("value", BAD_LENGTHS)
def test_a_length_that_is_not_one_number_is_refused(value):
    with pytest.raises(ValueError):
        fold_length(value)


def test_identical_lengths_are_folded():
    assert fold_length(b"3 ,3,\t3") == b"3"


def test_members_of_a_list_are_lower_case_and_never_empty():
    assert members(b" Close,,\tX-Foo , ") == [b"close", b"x-foo"]


@pytest.mark.parametrize(
    "host", [b"", b"a", b"a:1", b"a:65535", b"[::1]", b"[::ffff:1.2.3.4]:80", b"a_b.c", b"x%20y", b"1.2.3.4"]
)
def test_a_host_with_an_optional_port_is_a_host(host):
    check_host(host)


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_what_is_remembered_reads_the_same_again(name, value):
    lines = Lines()
    line = name + b":" + value
    try:
        entry = lines.learn_request(line)
    except Refused:
        return
    assert lines.requests[line] == entry
    spelt = line if entry is None else entry[3]
    again = lines.learn_request(spelt)  # a canonical line is its own canonical spelling
    assert again is None or again[3] == spelt


def test_lines_of_a_name_without_meaning_are_remembered_only_when_they_come_twice_in_a_row():
    lines = Lines()
    for number in range(100):
        assert lines.learn_request(b"X-Trace-Id: %d" % number) is None
        lines.keep_start(b"GET /%d HTTP/1.1" % number, (b"GET", b"/", None, 1))
    assert set(lines.requests) == {b"X-Trace-Id: 0"}  # the first of its name met the grammar
    assert not lines.starts
    lines.learn_request(b"X-Trace-Id: 99")
    lines.keep_start(b"GET /99 HTTP/1.1", (b"GET", b"/", None, 1))
    assert b"X-Trace-Id: 99" in lines.requests
    assert set(lines.starts) == {b"GET /99 HTTP/1.1"}
