"""The task lane's second opinion: h11 reads the same head, and must read the same. The only importer of h11.

head.py is stricter than h11 in every row of PEERS.md 4; where h11 is the stricter one, or understands something else,
the message is refused. h11 sees one head and is thrown away: never a body, a second message, or PAUSED twice.
"""

import re

import h11

from lbproxy.wire.head import RequestHead, ResponseHead
from lbproxy.wire.lines import bad_request, bad_response

# h11 takes every version it is told at its word. We read 1.2 to 1.9 as 1.1 (RFC 9110, 2.5), so it is asked about that.
_later_request = re.compile(rb"\A([^\r\n]* HTTP/1\.)[2-9](?=\r\n)")
_later_response = re.compile(rb"\A(HTTP/1\.)[2-9]")


def confirm_request(raw: bytes, head: RequestHead) -> None:
    """Raise Refused (400) where h11 refuses the head that read_request made `head` of, or reads it differently."""
    raw = _later_request.sub(rb"\g<1>1", raw.removeprefix(b"\r\n"))
    peer = h11.Connection(h11.SERVER, max_incomplete_event_size=len(raw) + 1)
    try:
        peer.receive_data(raw)
        event = peer.next_event()
    except h11.RemoteProtocolError as problem:
        raise bad_request(f"refused by the second reader: {problem}") from None
    if not isinstance(event, h11.Request):
        raise bad_request("the second reader sees no whole request")
    if _request_facts(event) != (
        head.method,
        head.target,
        head.host,
        head.minor,
        head.keep_alive,
        head.length,
        head.chunked,
        head.expects_continue,
    ):
        raise bad_request("two readers understand this request differently")


def confirm_response(raw: bytes, head: ResponseHead, method: bytes) -> None:
    """Raise Refused (502) where h11 disagrees; `method` is that of the request which this answers."""
    raw = _later_response.sub(rb"\g<1>1", raw)
    peer = h11.Connection(h11.CLIENT, max_incomplete_event_size=len(raw) + 1)
    asked = [(b"Host", b"backend")]
    if head.status == 101:
        asked += [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]
    peer.send(h11.Request(method=method, target=b"/", headers=asked))
    peer.send(h11.EndOfMessage())
    try:
        peer.receive_data(raw)
        event = peer.next_event()
    except h11.RemoteProtocolError as problem:
        raise bad_response(f"refused by the second reader: {problem}") from None
    if not isinstance(event, h11.Response | h11.InformationalResponse):
        raise bad_response("the second reader sees no whole response")
    length, chunked = _framing(event)
    stays = _stays(event)
    if event.status_code < 200 or event.status_code == 204:  # no body follows, whatever the fields announce (head.py)
        stays = stays and (event.status_code != 204 or not (length or chunked))
        length, chunked = None, False
    if (event.status_code, bytes(event.reason), length, chunked, stays) != (
        head.status,
        head.reason,
        head.length,
        head.chunked,
        head.keep_alive,
    ):
        raise bad_response("two readers understand this response differently")


def _request_facts(event: h11.Request) -> tuple[object, ...]:
    length, chunked = _framing(event)
    target, host = event.target, b"".join(_values(event, b"host"))
    if not target.startswith((b"/", b"*")):
        target, host = _from_absolute(target, event.method)
    minor = 0 if event.http_version == b"1.0" else 1
    expects = minor == 1 and b"100-continue" in _list(event, b"expect")
    return event.method, target, host, minor, _stays(event), length, chunked, expects


def _from_absolute(target: bytes, method: bytes) -> tuple[bytes, bytes]:
    """Origin-form and authority, read in another way than head.py's."""
    rest = target.partition(b"//")[2]
    end = min((at for mark in (b"/", b"?") if (at := rest.find(mark)) >= 0), default=len(rest))
    path = rest[end:]
    if not path:
        path = b"*" if method == b"OPTIONS" else b"/"
    return (path if path[:1] in (b"/", b"*") else b"/" + path), rest[:end]


def _framing(event: h11.Request | h11.Response | h11.InformationalResponse) -> tuple[int | None, bool]:
    lengths = _values(event, b"content-length")
    return (int(lengths[0]) if lengths else None), b"chunked" in _list(event, b"transfer-encoding")


def _stays(event: h11.Request | h11.Response | h11.InformationalResponse) -> bool:
    """h11 closes after every 1.0 message; a length or `keep-alive` keeps it for us (PEERS.md 4)."""
    options = _list(event, b"connection")
    return b"close" not in options and (event.http_version == b"1.1" or b"keep-alive" in options)


def _values(event: h11.Request | h11.Response | h11.InformationalResponse, name: bytes) -> list[bytes]:
    return [value for spelt, value in event.headers if spelt == name]


def _list(event: h11.Request | h11.Response | h11.InformationalResponse, name: bytes) -> list[bytes]:
    return [member.strip().lower() for value in _values(event, name) for member in value.split(b",")]
