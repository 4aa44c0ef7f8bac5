"""Heads between lbproxy and a backend that speaks HTTP/2: the request as a header block, the answer as a ResponseHead.

The request has the facts of wire.headers.request_to_backend; the answer is spelt as HTTP/1 and read by
wire.head.read_response, so that all of its rules hold.
"""

from http import HTTPStatus
from typing import Final

from lbproxy.wire.head import RequestHead, ResponseHead, read_response
from lbproxy.wire.headers import ClientFacts, request_to_backend
from lbproxy.wire.http2.encoder import EncodedLines, field, plain_string
from lbproxy.wire.http2.errors import MalformedMessage
from lbproxy.wire.http2.hpack import Fields
from lbproxy.wire.http2.request import check_field, refuse_connection_specific
from lbproxy.wire.http2.response import REQUEST_ID
from lbproxy.wire.http2.websocket import KEY, without
from lbproxy.wire.lines import Lines, bad_response, canonical

# HTTP/2 has none; some clients of HTTP/1 do not read a status line without one.
_REASONS: Final = {b"%d" % status.value: status.phrase.encode() for status in HTTPStatus}
_ID: Final = b"X-Request-ID: "
_TRANSFER: Final = b"Transfer-Encoding: "


def request_block(
    head: RequestHead,
    client: ClientFacts,
    request_id: bytes,
    encoded: EncodedLines,
    *,
    scheme: bytes = b"http",
    protocol: bytes = b"",
) -> bytes:
    """The block for the backend. With `protocol` an extended CONNECT, for the upgrade that the request asks for."""
    start, host, *lines = request_to_backend(head, client, request_id).split(b"\r\n")[:-2]
    method, target, _ = start.split(b" ")
    block = [field(b":method", b"CONNECT" if protocol else method), field(b":scheme", scheme)]
    if protocol:
        block.append(field(b":protocol", protocol))
        lines = without(lines, KEY)
    authority = host.partition(b": ")[2]
    if authority:
        block.append(field(b":authority", authority))
    block.append(field(b":path", target))
    for line in lines:
        if line.startswith(_ID):
            block.append(REQUEST_ID + plain_string(line[len(_ID) :]))
        elif not line.startswith(_TRANSFER):
            block.append(encoded[line])
    return b"".join(block)


def response_head(fields: Fields, lines: Lines) -> ResponseHead:
    """A final or interim head. Raises Refused (502)."""
    try:
        return read_response(_spell_response(fields), lines)
    except MalformedMessage as problem:
        raise bad_response(f"the backend's answer is malformed: {problem}") from None


def _spell_response(fields: Fields) -> bytes:
    if not fields or fields[0][0] != b":status":
        raise MalformedMessage("no :status")
    status = fields[0][1]
    if len(status) != 3 or not status.isdigit() or status == b"101":
        raise MalformedMessage(":status is not one of HTTP/2")
    lines = [_line(name, value) for name, value in fields[1:]]
    return b"\r\n".join((b"HTTP/1.1 %b %b" % (status, _REASONS.get(status, b"")), *lines, b"", b""))


def _line(name: bytes, value: bytes) -> bytes:
    check_field(name, value)
    refuse_connection_specific(name, value)
    if name == b"content-length" and not value.isdigit():
        raise MalformedMessage("a content-length that is not a number")
    return canonical(name, value)
