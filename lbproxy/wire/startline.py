"""Request line and status line of HTTP/1 (RFC 9112, 3 and 4): one line in, its parts out, or Refused.

Knows the four forms of a target, and that a reverse proxy serves three of them. Knows nothing of the fields below.
"""

import re

from lbproxy.wire.lines import TOKEN, Refused, Start, Status, bad_request, bad_response, check_host, spoiling

LONGEST_METHOD_BYTES = 64
NOT_IN_START_LINE = re.compile(rb"[^ -~\r\n]").search
_request_line = re.compile(rb"(" + TOKEN + rb") ([!-~]+) HTTP/([0-9])\.([0-9])").fullmatch
_absolute = re.compile(rb"https?://([^/?#]+)(/[^#]*|\?[^#]*)?", re.IGNORECASE).fullmatch
_authority = re.compile(rb"[^/?#:@]+:[0-9]+|\[[^/?#@]+\]:[0-9]+").fullmatch
_status_line = re.compile(rb"HTTP/([0-9])\.([0-9]) ([1-9][0-9][0-9])(?: ([\t -~\x80-\xff]*))?").fullmatch


_USUAL_METHODS = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"))
IN_TARGET = spoiling(byte for byte in range(33, 127) if byte != ord("#"))


def read_request_line(line: bytes) -> Start:
    """Method, target to forward, host if the target names one, minor version. Raises Refused (400, 501, 505)."""
    # Hot: nearly every line is of this form, and many are seen only once.
    method, _, rest = line.partition(b" ")
    if method in _USUAL_METHODS and rest[:1] == b"/" and rest[-9:] == b" HTTP/1.1":
        target = rest[:-9]
        if target.translate(IN_TARGET) == target:
            return method, target, None, 1
    return _read_unusual(line)


def _read_unusual(line: bytes) -> Start:
    match = _request_line(line)
    if match is None:
        raise bad_request("the request line is not METHOD target HTTP/1.1")
    method, target, major, minor = match.groups()
    if major == b"0":
        raise bad_request("HTTP/0.9 is not spoken here")
    if b"#" in target:
        raise bad_request("a fragment in the target")
    if len(method) > LONGEST_METHOD_BYTES:
        raise bad_request(f"a method of more than {LONGEST_METHOD_BYTES} bytes", 501)
    authority: bytes | None = None
    if method == b"CONNECT":
        if major != b"1":
            raise bad_request("only HTTP/1.0 and HTTP/1.1 are spoken here", 505)
        raise bad_request("CONNECT is not supported", 501)
    if target == b"*":
        if method != b"OPTIONS":
            raise bad_request("the target * with another method than OPTIONS")
    elif not target.startswith(b"/"):
        target, authority = _read_absolute(target, method)
    if major != b"1":
        raise bad_request("only HTTP/1.0 and HTTP/1.1 are spoken here", 505)
    return method, target, authority, 0 if minor == b"0" else 1


def _read_absolute(target: bytes, method: bytes) -> tuple[bytes, bytes]:
    """Origin-form and host of an absolute target (RFC 9112, 3.2.2 and 3.2.4)."""
    match = _absolute(target)
    if match is None:
        if _authority(target):
            raise bad_request("a target that is only an authority", 501)
        raise bad_request("the target is neither a path nor an http URI")
    authority, rest = match.groups()
    try:
        check_host(authority)
    except ValueError as problem:
        raise bad_request(f"in the target: {problem}") from None
    if rest is None:
        return (b"*" if method == b"OPTIONS" else b"/"), authority
    return (rest if rest.startswith(b"/") else b"/" + rest), authority


def read_status_line(line: bytes) -> Status:
    """Status, reason phrase (often missing), minor version. Raises Refused (502)."""
    match = _status_line(line)
    if match is None:
        raise bad_response("the status line is not HTTP/1.1 and a status of three digits")
    major, minor, status, reason = match.groups()
    if major != b"1":
        raise bad_response("the backend does not answer in HTTP/1")
    return int(status), reason or b"", 0 if minor == b"0" else 1


def has_status_line(buffer: bytes | bytearray) -> bool:
    """Whether the buffer begins with a whole and valid status line."""
    line, end, _ = buffer.partition(b"\r\n")
    try:
        return bool(end) and bool(read_status_line(bytes(line)))
    except Refused:
        return False
