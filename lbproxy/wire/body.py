"""Bodies of HTTP/1: where one ends, and what is in it once the framing is off (RFC 9112, 6 and 7).

Bytes in, payload out; chunk sizes, extensions and dangerous trailers stay behind, because framing is made anew for the
other side. Memory is bounded whatever the framing looks like: at most one unfinished chunk-size line or one trailer
section is kept between two calls. Knows no socket and no clock.
"""

import re
from collections.abc import Sequence

from lbproxy.wire.head import Refused, RequestHead, ResponseHead
from lbproxy.wire.lines import (
    CLIENT_CERTIFICATE,
    IMPOSSIBLE,
    bad_request,
    bad_response,
    canonical,
    impersonates,
    split_field,
)

TRAILER_BYTES = 16 * 1024
_EXTENSION_BYTES = 256
_SIZE_LINE_BYTES = 16 + 1 + _EXTENSION_BYTES + 2

# HTAB is a blank here (RFC 9112, 7.1.1), every other control byte is refused; blanks before the extension too.
_size_line = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;[\t -~\x80-\xff]{0,%d})?\r\n" % _EXTENSION_BYTES).match
_size_begun = re.compile(
    rb"(?:[0-9A-Fa-f]{0,16}|[0-9A-Fa-f]{1,16}(?:;[\t -~\x80-\xff]{0,%d})?\r?)" % _EXTENSION_BYTES
).fullmatch

# What frames, routes, authenticates or changes how the message itself is read may not come late (RFC 9110, 6.5.1).
_UNSAFE_TRAILERS = (
    frozenset(
        b"host content-length transfer-encoding connection keep-alive te trailer upgrade expect http2-settings proxy "
        b"proxy-connection proxy-authenticate proxy-authorization proxy-authentication-info proxy-status max-forwards "
        b"authorization www-authenticate authentication-info cookie set-cookie forwarded via x-real-ip x-request-id "
        b"content-encoding content-type content-range content-location range if-match if-none-match if-modified-since "
        b"if-unmodified-since if-range cache-control pragma age expires date location vary retry-after origin referer"
        b"".split()
    )
    | CLIENT_CERTIFICATE
)
_UNSAFE_PREFIXES = (b"x-forwarded-", b"access-control-", b"sec-")


def is_safe_trailer(name: bytes) -> bool:
    """Whether a field with this name (lower case) is passed on in trailers."""
    return not (name in _UNSAFE_TRAILERS or name.startswith(_UNSAFE_PREFIXES) or impersonates(name))


class Body:
    """A body that ends after `remaining` bytes; the other framings are below.

    `rest` is what came behind the end, valid once `done`. `until_eof` says that only the end of the connection ends it.
    """

    __slots__ = ("_response", "done", "remaining", "rest", "trailers", "until_eof")

    def __init__(self, remaining: int | None, *, response: bool) -> None:
        self.remaining = remaining  # None where it is not known beforehand
        self.done = remaining == 0
        self.rest = b""
        self.trailers: list[bytes] = []  # safe ones, canonical; only chunked bodies have them
        self.until_eof = False
        self._response = response

    def feed(self, data: bytes) -> bytes:
        """The payload in `data`. Raises Refused: 400, 413 or 431 of a request, 502 of a response."""
        if self.done:
            self.rest += data
            return b""
        assert self.remaining is not None
        left = self.remaining - len(data)
        if left > 0:
            self.remaining = left
            return data
        self.remaining = 0
        self.done = True
        if left == 0:
            return data
        self.rest = data[left:]
        return data[:left]

    def skip(self, count: int) -> None:
        """So much of a body of known length went by another way."""
        assert self.remaining is not None
        self.remaining -= count
        self.done = self.remaining == 0

    def eof(self) -> None:
        """The sender's side has ended. Raises Refused when the body is not complete."""
        if not self.done:
            raise self._refused("the body was cut short", "http_response_incomplete")

    def _refused(self, reason: str, token: str = "http_protocol_error") -> Refused:
        return bad_response(reason, token) if self._response else bad_request(reason)


class _UntilEof(Body):
    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(None, response=True)
        self.until_eof = True

    def feed(self, data: bytes) -> bytes:
        return data

    def eof(self) -> None:
        self.done = True


class _Chunked(Body):
    """Size line, data, CRLF, size line, data ... and trailers after the chunk of size 0."""

    __slots__ = ("_in_trailers", "_kept", "_left", "_max_bytes", "_max_trailer_bytes", "_owes_crlf", "_total")

    def __init__(self, max_bytes: int, max_trailer_bytes: int, *, response: bool) -> None:
        super().__init__(None, response=response)
        self._max_bytes = max_bytes  # 0 = no limit
        self._max_trailer_bytes = max_trailer_bytes
        self._total = 0
        self._left = 0  # of the data of the chunk at hand
        self._owes_crlf = False  # the CRLF behind its data
        self._in_trailers = False
        self._kept = b""  # what has come of a line, or of the trailer section, that is not whole yet

    def feed(self, data: bytes) -> bytes:
        if self.done:
            self.rest += data
            return b""
        searched = len(self._kept)
        if searched:
            data = self._kept + data
            self._kept = b""
        pieces: list[bytes] = []
        at, end = 0, len(data)
        while at < end and not self._in_trailers:
            if self._left:
                piece = data[at : at + self._left]
                pieces.append(piece)
                at += len(piece)
                self._left -= len(piece)
            elif self._owes_crlf:
                after = data[at : at + 2]
                if after != b"\r\n":
                    if after != b"\r":
                        raise self._refused("no CRLF behind the data of a chunk")
                    self._kept = after
                    break
                self._owes_crlf = False
                at += 2
            else:
                line = _size_line(data, at)
                if line is None:
                    self._keep_size_line(data[at : at + _SIZE_LINE_BYTES])
                    break
                size = int(line[1], 16)
                self._total += size
                if self._max_bytes and self._total > self._max_bytes:
                    raise bad_request(f"the body is over {self._max_bytes} bytes", 413)
                at = line.end()
                searched = 0
                behind = at + size
                if size and data[behind : behind + 2] == b"\r\n":  # all of it is here: the usual case, and quicker
                    pieces.append(data[at:behind])
                    at = behind + 2
                else:
                    self._left = size
                    self._owes_crlf = size > 0
                    self._in_trailers = size == 0
        if self._in_trailers and at < end:
            self._read_trailers(data[at:], searched)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _keep_size_line(self, begun: bytes) -> None:
        if not _size_begun(begun):
            raise self._refused("a chunk size that is not plain hexadecimal, or an extension that is too much")
        self._kept = begun

    def _read_trailers(self, section: bytes, searched: int) -> None:
        """`section`: everything behind the last chunk's line. Its first `searched` bytes were looked at before."""
        end = -2 if section.startswith(b"\r\n") else section.find(b"\r\n\r\n", max(0, searched - 3))
        if end == -1:
            if len(section) > self._max_trailer_bytes + 3:  # up to three bytes of the end may be here
                raise self._too_many_trailers()
            if IMPOSSIBLE(section, max(0, searched - 1)):
                raise self._refused("a control byte in a trailer, or a line that ends in a bare CR or LF")
            self._kept = section
            return
        if end > self._max_trailer_bytes:
            raise self._too_many_trailers()
        if end > 0:
            self.trailers = self._safe(section[:end].split(b"\r\n"))
        self.done = True
        self.rest = section[end + 4 :]

    def _safe(self, lines: list[bytes]) -> list[bytes]:
        safe = []
        for line in lines:
            try:
                name, value = split_field(line)
            except ValueError as problem:
                raise self._refused(f"in a trailer: {problem}") from None
            lower = name.lower()
            if is_safe_trailer(lower):
                safe.append(canonical(name, value))
        return safe

    def _too_many_trailers(self) -> Refused:
        reason = f"the trailers are over {self._max_trailer_bytes} bytes"
        if self._response:
            return bad_response(reason, "http_response_trailer_section_size")
        return bad_request(reason, 431)


def request_body(head: RequestHead, max_bytes: int, max_trailer_bytes: int = TRAILER_BYTES) -> Body:
    """What follows this request. `max_bytes`: 0 = no limit. Raises Refused (413) for a known length over it."""
    if head.chunked:
        return _Chunked(max_bytes, max_trailer_bytes, response=False)
    length = head.length or 0
    if max_bytes and length > max_bytes:
        raise bad_request(f"the body is over {max_bytes} bytes", 413)
    return Body(length, response=False)


def response_body(head: ResponseHead, method: bytes, max_trailer_bytes: int = TRAILER_BYTES) -> Body:
    """What follows this response to a request with `method` (RFC 9112, 6.3). After a 101 nothing is a body."""
    if method == b"HEAD" or head.status < 200 or head.status in (204, 304):
        return Body(0, response=True)
    if head.chunked:
        return _Chunked(0, max_trailer_bytes, response=True)
    return _UntilEof() if head.length is None else Body(head.length, response=True)


def chunk(payload: bytes) -> bytes:
    """One chunk; nothing for nothing, because an empty chunk would end the body."""
    return b"%x\r\n%b\r\n" % (len(payload), payload) if payload else b""


def last_chunk(trailers: Sequence[bytes] = ()) -> bytes:
    """The end of a chunked body, with canonical trailer lines."""
    return b"\r\n".join((b"0", *trailers, b"\r\n")) if trailers else b"0\r\n\r\n"
