"""The header block of an answer in the express lane, made in the cheapest way that the backend's head allows.

A head that its connection has repeated has its block with it; one that a template has read gives the template's block;
any other is made of its lines, each of which is remembered.
"""

from lbproxy.wire.head import ResponseHead
from lbproxy.wire.headers import hsts_line, is_dated, sets_hsts
from lbproxy.wire.http2.answer_template import AnswerTemplate
from lbproxy.wire.http2.encoder import EncodedLines, fresh_field
from lbproxy.wire.http2.response import fixed_block, own_block
from lbproxy.worker.express.record import ExpressRecord

ID_BYTES = 32  # of a request id that is ours
ID_FIELD = fresh_field(b"x-request-id", bytes(ID_BYTES))[:-ID_BYTES]  # the id goes behind it


def lines_of_ours(record: ExpressRecord, head: ResponseHead, *, dated: bool) -> bytes:
    """What belongs to this answer alone (see wire.headers.response_to_client)."""
    own, hsts_s = record.own, record.view.settings.hsts_s
    if hsts_s is not None and not sets_hsts(head):
        own += hsts_line(hsts_s)
    return own if dated else own + record.lanes.context.date()


def block_of(record: ExpressRecord, head: ResponseHead, encoded: EncodedLines) -> bytes:
    """The header block of the answer. The backend's connection is still held."""
    assert record.connection is not None
    reply, match = record.connection.reply, record.reply_match
    if reply is not None:
        own = lines_of_ours(record, head, dated=reply.is_dated)
        if not reply.block:
            reply.block = fixed_block(head, encoded)
        return reply.block + own_block(own, encoded)
    own = lines_of_ours(record, head, dated=is_dated(head) if match is None else match[0].is_dated)
    if match is None:
        return fixed_block(head, encoded) + own_block(own, encoded)
    template = match[0]
    if not isinstance(template.http2, AnswerTemplate):
        template.http2 = AnswerTemplate(template, encoded)
    return template.http2.block(match[1]) + own_block(own, encoded)
