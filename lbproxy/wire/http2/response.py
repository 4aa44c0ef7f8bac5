"""Header blocks of the answers that a client gets: the facts of wire.headers.response_to_client, in HPACK.

No block depends on a connection, so what is the same for every client is made once per line (EncodedLines).
"""

from collections.abc import Iterable
from typing import Final

from lbproxy.wire.head import ResponseHead
from lbproxy.wire.headers import VIA, via_behind
from lbproxy.wire.http2.encoder import EncodedLines, field, fresh_field, plain_string
from lbproxy.wire.http2.websocket import ACCEPT, without
from lbproxy.wire.pages import ErrorPage, error_response

REQUEST_ID: Final = fresh_field(b"x-request-id", b"")[:-1]  # the field without its value, which never comes again


def response_block(head: ResponseHead, own: bytes, encoded: EncodedLines) -> bytes:
    """`own`: what belongs to this answer alone: the request id, and further lines, each behind a CRLF."""
    return b"".join((fixed_block(head, encoded), own_block(own, encoded)))


def fixed_block(head: ResponseHead, encoded: EncodedLines) -> bytes:
    """What is the same whenever this head is answered; own_block goes behind it."""
    status = head.status
    lines = [encoded[line] for line in head.lines]
    if head.length is not None and status >= 200 and status != 204:
        lines.append(encoded[b"content-length: %d" % head.length])
    return b"".join((field(b":status", b"%d" % status), *lines, encoded[via_line(head)]))


def own_block(own: bytes, encoded: EncodedLines) -> bytes:
    request_id, _, rest = own.partition(b"\r\n")
    block = REQUEST_ID + plain_string(request_id)
    if rest:
        block += b"".join([encoded[line] for line in rest.split(b"\r\n")])
    return block


def tunnel_block(head: ResponseHead, own: bytes, encoded: EncodedLines) -> bytes:
    """The block of the 200 that a 101 becomes, as the answer to an extended CONNECT (RFC 8441, 5)."""
    lines = [encoded[line] for line in without(head.lines, ACCEPT)]
    return b"".join((field(b":status", b"200"), *lines, encoded[via_line(head)], own_block(own, encoded)))


def error_block(page: ErrorPage, encoded: EncodedLines) -> tuple[bytes, bytes]:
    """The block and the body of an answer of lbproxy's own."""
    head, _, body = error_response(page).partition(b"\r\n\r\n")
    start, *lines = head.split(b"\r\n")
    status = start.split(b" ")[1]
    kept = [line for line in lines if not line.startswith(b"Connection:")]
    return field(b":status", status) + b"".join([_fresh(line, encoded) for line in kept]), body


def trailers_block(lines: Iterable[bytes], encoded: EncodedLines) -> bytes:
    return b"".join([encoded[line] for line in lines])


def _fresh(line: bytes, encoded: EncodedLines) -> bytes:
    name, _, value = line.partition(b": ")
    return REQUEST_ID + plain_string(value) if name == b"X-Request-ID" else encoded[line]


def via_line(head: ResponseHead) -> bytes:
    values = head.fields.get(b"via")
    return (VIA if values is None else via_behind(values))[:-2]
