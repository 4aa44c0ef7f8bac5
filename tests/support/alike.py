"""HTTP heads that are alike: one template, other values each time. For head templates (wire/head_template.py)."""

from collections.abc import Sequence
from dataclasses import dataclass

from support.http_heads import Choices, bend, drawn

PLAIN = [
    b"a=1", b"b=22; c", b"50%", b"%b %s %%", b"a \t b", b"\xe4\xff", b"a: b", b",", b"/a?b#c", b"HTTP/1.1", b"0",
    b"7130274519206487301",
]  # fmt: skip
LENGTHS = [b"3", b"0", b"17", b"033", b"9999999999999999999", b"3, 3"]
ANYTHING = [
    b"", b" ", b"a ", b"\ta", b" a", b"a\x00", b"a\rb", b"a\nb", b"a\x7f", b"a\r\n b", b"a\r\nA: b", b"a\r\n\r\n",
    b"+3", b"3, 4", b"3a", b"03, 3", b"20000000000000000000", b"close", b"websocket", b"chunked", b"x" * 300,
]  # fmt: skip

# Names and their possible values.
Kinds = Sequence[tuple[Sequence[bytes], Sequence[bytes]]]
HARMLESS = (
    b"Cookie cookie X-Foo A User_Id Authorization User-Agent Accept accept Referer ETag Set-Cookie Date X-Real-IP "
    b"X-Forwarded-For x-forwarded-port X-Forwarded_For X-Forwarded-A_B X-Request-ID Forwarded".split(),
    PLAIN,
)
TELLING: Kinds = [
    ([b"Content-Length", b"content-length"], LENGTHS),
    ([b"Connection"], [b"keep-alive", b"close", b"cookie", b"upgrade", b"X-Foo, accept", b"x-real-ip, etag"]),
    ([b"Transfer-Encoding"], [b"chunked", b"Chunked"]),
    ([b"Upgrade", b"Connection: upgrade\r\nUpgrade"], [b"websocket", b"h2c"]),
    ([b"TE"], [b"trailers", b"gzip"]),
    ([b"Expect"], [b"100-continue"]),
    ([b"Via", b"Retry-After", b"Keep-Alive", b"Trailer", b"Proxy", b"Content_Length"], PLAIN),
    ([b"Content-Type"], [b"text/html", b"text/event-stream", b"text/event-stream; a"]),
    ([b"Content-Encoding"], [b"gzip", b"identity"]),
    ([b"Accept:a", b"X-Forwarded-For:a", b"Connection:a", b"X:y"], PLAIN),  # a colon, and a value with one
]

METHODS = [b"GET", b"POST", b"HEAD", b"OPTIONS", b"get", b"X-Y"]
TARGETS = [b"/", b"/a", b"/b?c=%d", b"//", b"/7130274519206487300", b'/"<>', b"/0"]
ODD_TARGETS = [b"*", b"http://b/c", b"a", b"", b"/#", b"/\xe4", b"/a b", b"/\t", b"?", b"http://b:0/"]
REQUEST_VERSIONS = [*[b"HTTP/1.1"] * 9, b"HTTP/1.0", b"HTTP/1.2"]
STATUS_LINES = [
    b"HTTP/1.1 200 OK", b"HTTP/1.1 404 50%", b"HTTP/1.1 204 No", b"HTTP/1.1 304 Not", b"HTTP/1.0 200 OK",
    b"HTTP/1.1 200", b"HTTP/1.1 101 Go", b"HTTP/1.1 103 Hints", b"HTTP/1.2 200 OK",
]  # fmt: skip
BEHIND = [b"", b"", b"body", b"GET / HTTP/1.1\r\nHost: b\r\n\r\n", b"\r\n", b"\r\n\r\n", b"\x00"]


@dataclass(frozen=True, slots=True)
class Alike:
    learned: tuple[bytes, bytes]
    later: list[bytes]  # more of the kind, some with text behind them; then one that is odd, and one that is bent


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a template: the text before the value, the possible values, and the constant value."""

    name: bytes
    values: Sequence[bytes]
    odd: Sequence[bytes]
    fixed: bytes | None

    def draw(self, choices: Choices, values: Sequence[bytes]) -> bytes:
        return self.name + (choices.one_of(values) if self.fixed is None else self.fixed)


def _template(choices: Choices, start: Part) -> list[Part]:
    parts = [start]
    for _ in range(1 + choices.number(7)):
        names, values = HARMLESS
        telling = choices.rarely(7)
        if telling:
            names, values = choices.one_of(TELLING)
        varies = choices.number(2) if not telling or values is LENGTHS else choices.rarely(6)
        name = choices.one_of(names) + (b": " if choices.number(12) else b":")
        parts.append(Part(name, values, ANYTHING, None if varies else choices.one_of(values)))
    if choices.rarely(12):
        parts += [Part(b"F%d: " % number, PLAIN, ANYTHING, None) for number in range(6 + choices.number(6))]
    return parts


def _alike(choices: Choices, parts: list[Part], behind_start: list[bytes]) -> Alike:
    def head(odd: int = 0) -> bytes:
        """A head in which the part with this number has an odd value."""
        lines = [part.draw(choices, part.odd if number == odd else part.values) for number, part in enumerate(parts, 1)]
        return b"\r\n".join([lines[0] + b"".join(behind_start[:1]), *behind_start[1:], *lines[1:], b"\r\n"])

    learned = head(), head()
    return Alike(
        learned,
        [
            head() + choices.one_of(BEHIND),
            head() + choices.one_of(BEHIND),
            head(1 + choices.number(len(parts))) + choices.one_of(BEHIND),
            bend(choices, head()),
        ],
    )


def _requests(choices: Choices) -> Alike:
    start = Part(choices.one_of(METHODS) + b" ", TARGETS, ODD_TARGETS, None)
    return _alike(choices, _template(choices, start), [b" " + choices.one_of(REQUEST_VERSIONS), b"Host: a"])


def _responses(choices: Choices) -> Alike:
    start = Part(b"", STATUS_LINES, STATUS_LINES, STATUS_LINES[choices.number(12) % len(STATUS_LINES)])
    return _alike(choices, _template(choices, start), [])


alike_requests = drawn(_requests)
alike_responses = drawn(_responses)
