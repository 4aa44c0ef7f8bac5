"""HTTP heads for Hypothesis: plausible pieces, put together freely, then bent a little.

Hypothesis draws the bytes that decide all at once (Choices): a draw for each piece would cost ten times as much, and
these heads are wanted by the ten thousand. They shrink all the same: fewer bytes, and lower ones, are plainer heads.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

from hypothesis import strategies as st

from support.http_corpus import BAD_CODINGS, BAD_LENGTHS

DECIDING_BYTES = 96
Piece = TypeVar("Piece")
Made = TypeVar("Made")


class Choices:
    """A choice made by the next bytes; the first alternative where no bytes are left."""

    def __init__(self, deciding: bytes) -> None:
        self._left = iter(deciding)

    def number(self, below: int) -> int:
        number = next(self._left, 0)
        return (number << 8 | next(self._left, 0)) % below if below > 256 else number % below

    def one_of(self, pieces: Sequence[Piece]) -> Piece:
        return pieces[self.number(len(pieces))]

    def rarely(self, one_in: int) -> bool:
        return self.number(one_in) == one_in - 1

    def bytes(self, most: int) -> bytes:
        return bytes(self.number(256) for _ in range(self.number(most + 1)))


def drawn(make: Callable[[Choices], Made]) -> st.SearchStrategy[Made]:
    return st.binary(min_size=DECIDING_BYTES, max_size=DECIDING_BYTES).map(lambda deciding: make(Choices(deciding)))


METHODS = [b"GET", b"POST", b"HEAD", b"OPTIONS", b"PUT", b"CONNECT", b"get", b"X-Y", b"G T"]
TARGETS = [
    b"/", b"/a?b=c", b"*", b"http://b", b"http://b:8/c?d", b"HTTPS://b?x", b"//x", b"a:80", b"/\xe4", b"/#",
    b"http://u@b/", b"/%",
]  # fmt: skip
VERSIONS = [b"1.1", b"1.0", b"1.5", b"2.0", b"0.9", b"1.10", b"1.1 "]
NAMES = (
    b"Host host Content-Length content-length Transfer-Encoding Connection Upgrade TE Trailer Expect Accept Cookie Via "
    b"X-Forwarded-For X_Forwarded_For Content_Length Keep-Alive Content-Type Content-Encoding X-Foo Proxy User-Agent "
    b"X-Request-ID".split()
)
VALUES = [
    b"3", b"3, 3", b"0", b"chunked", b"Chunked", b"close", b"keep-alive", b"Keep-Alive, X-Foo", b"upgrade",
    b"websocket", b"h2c", b"trailers", b"100-continue", b"a.example", b"b:80", b"[::1]", b"", b"text/event-stream",
    b"gzip", b"close, host", b"a  b\tc",
]  # fmt: skip
BAD_VALUES = [*BAD_LENGTHS, *BAD_CODINGS]
BLANKS = [b" ", b"", b"\t", b"  ", b" \t "]
GOOD_FIELDS = [
    b"Accept: */*", b"Content-Length: 3", b"Cookie: a=b", b"Connection: close", b"X: y", b"x-foo:\tz ",
    b"Transfer-Encoding: chunked",
]  # fmt: skip
STATUS_LINES = [
    b"HTTP/1.1 200 OK", b"HTTP/1.1 404 Not Found", b"HTTP/1.1 204 No Content", b"HTTP/1.0 200 OK", b"HTTP/1.1 304",
]  # fmt: skip
STATUS_VERSIONS = [b"1.1", b"1.1", b"1.0", b"1.4", b"2.0"]
STATUSES = [b"200", b"204", b"304", b"100", b"101", b"103", b"404", b"999", b"099", b"20"]
REASONS = [b" OK", b"", b" ", b" a\tb \xe4", b"  x", b" \x01"]
NASTY = [b"", b"\r", b"\n", b"\r\n", b" ", b"\t", b":", b",", b";", b"\x00", b"\x0b", b"\x0c", b"\x1c", b"\x7f",
b"\x80", b"\x85", b"\xa0", b"\xff", b"0", b"A",
         b"#", b"@", b"\r\n ", b"\n\n", b"_", b"/"]  # fmt: skip


def request_head(choices: Choices) -> bytes:
    parts = tuple(pieces[0] if choices.number(3) else choices.one_of(pieces) for pieces in (METHODS, TARGETS, VERSIONS))
    return b"\r\n".join([b"%b %b HTTP/%b" % parts, b"Host: a", *_fields(choices), b"\r\n"])


def response_head(choices: Choices) -> bytes:
    start = choices.one_of(STATUS_LINES)
    if choices.number(2):
        parts = choices.one_of(STATUS_VERSIONS), choices.one_of(STATUSES), choices.one_of(REASONS)
        start = b"HTTP/%b %b%b" % parts
    return b"\r\n".join([start, *_fields(choices), b"\r\n"])


def _fields(choices: Choices) -> list[bytes]:
    return [_field(choices) for _ in range(choices.number(6))]


def _field(choices: Choices) -> bytes:
    if not choices.rarely(4):
        return choices.one_of(GOOD_FIELDS)
    name, before, behind = choices.one_of(NAMES), choices.one_of(BLANKS), choices.one_of(BLANKS)
    source = choices.one_of((VALUES, VALUES, BAD_VALUES, None))
    value = choices.bytes(12) if source is None else choices.one_of(source)
    return b"%b:%b%b%b" % (name, before, value, behind)


def bend(choices: Choices, raw: bytes) -> bytes:
    """The head with up to two places overwritten by bytes that do not belong there."""
    for _ in range(choices.one_of((0, 0, 1, 2))):
        at = choices.number(max(len(raw) - 3, 1))
        raw = raw[:at] + choices.one_of(NASTY) + raw[at + choices.number(3) :]
    return raw


def bent(make: Callable[[Choices], bytes]) -> st.SearchStrategy[bytes]:
    return drawn(lambda choices: bend(choices, make(choices)))
