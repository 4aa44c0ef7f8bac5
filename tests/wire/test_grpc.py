from hypothesis import given
from hypothesis import strategies as st
from support.each import each

from lbproxy.wire.grpc import (
    MessageTracker,
    call_timeout_s,
    first_message,
    is_grpc,
    is_grpc_spelt,
    message,
    percent_encoded,
    status_lines,
)
from lbproxy.wire.head import Lines, read_request


def head(*lines: bytes, method: bytes = b"POST"):
    return read_request(b"\r\n".join((method + b" /a.B/C HTTP/1.1", b"Host: a", *lines, b"", b"")), Lines(), 100)


@each(
    [
        (b"content-type: application/grpc", True),
        (b"Content-Type: application/grpc+proto", True),
        (b"content-type: Application/GRPC;charset=utf-8", True),
        (b"content-type:\tapplication/grpc", True),
        (b"content-type: application/grpc-web", False),
        (b"content-type: application/grpcx", False),
        (b"content-type: text/plain, application/grpc", False),
        (b"x-content-type: application/grpc", False),
    ]
)
def test_a_call_is_known_by_its_content_type(case: tuple[bytes, bool]) -> None:
    line, is_call = case
    assert is_grpc_spelt(b"POST / HTTP/1.1\r\na: b\r\n" + line + b"\r\n\r\n") is is_call
    assert not is_grpc_spelt(b"GET / HTTP/1.1\r\n" + line + b"\r\n\r\n")
    assert is_grpc(head(b"a: b", line)) is is_call
    assert not is_grpc(head(b"a: b", line, method=b"GET"))


@each(
    [
        (b"1S", 1.0),
        (b"100m", 0.1),
        (b"99999999H", 99999999 * 3600.0),
        (b"5M", 300.0),
        (b"20u", 2e-05),
        (b"7n", 7e-09),
        (b"0n", 0.0),
        (b"123456789S", None),
        (b"S", None),
        (b"-1S", None),
        (b"1s", None),
        (b"1.5S", None),
        (b"", None),
    ]
)
def test_the_deadline_of_a_call_is_digits_and_a_unit(case: tuple[bytes, float | None]) -> None:
    text, wanted_s = case
    found_s = call_timeout_s(head(b"grpc-timeout: " + text))
    assert found_s is None if wanted_s is None else abs(found_s - wanted_s) <= 1e-9 * wanted_s


def test_without_the_field_a_call_has_no_deadline() -> None:
    assert call_timeout_s(head()) is None


@given(st.text())
def test_a_message_fits_into_a_field_and_comes_back(text: str) -> None:
    from urllib.parse import unquote

    encoded = percent_encoded(text)
    assert all(0x20 <= byte <= 0x7E for byte in encoded)
    assert unquote(encoded.decode("ascii")) == text.encode("utf-8", "replace").decode()


def test_the_end_of_a_call_is_three_trailers_at_most() -> None:
    assert status_lines(14, "going away: 100%") == [b"grpc-status: 14", b"grpc-message: going away: 100%25"]
    assert status_lines(14, "x", pushback_ms=250)[2] == b"grpc-retry-pushback-ms: 250"


def test_a_message_is_read_as_it_was_written_when_it_is_complete() -> None:
    body = message(b"abc")
    assert body == b"\0\0\0\0\3abc"
    assert [first_message(body[:cut]) for cut in range(8)] == [None] * 8
    assert first_message(body) == first_message(body + b"\0") == b"abc"
    assert first_message(b"\1" + body[1:]) is None, "compressed: nobody here could read it"


MESSAGES = message(b"") + message(b"abc") + message(b"\0" * 300)
ENDS = (0, 5, 13, len(MESSAGES))


def test_the_end_of_every_message_is_known_at_every_cut() -> None:
    for cut in range(len(MESSAGES) + 1):
        tracker = MessageTracker()
        assert tracker.last_boundary(MESSAGES[:cut]) == max(end for end in ENDS if end <= cut)
        tracker.feed(MESSAGES[:cut])
        assert tracker.at_boundary == (cut in ENDS)
        assert tracker.complete == sum(end <= cut for end in ENDS[1:])
        behind = [end - cut for end in ENDS if end > cut or (end == cut and tracker.at_boundary)]
        assert tracker.last_boundary(MESSAGES[cut:]) == (behind[-1] if behind else -1)
        assert tracker.last_boundary(b"") == (0 if tracker.at_boundary else -1)
        tracker.feed(MESSAGES[cut:])
        assert (tracker.at_boundary, tracker.complete) == (True, 3)
