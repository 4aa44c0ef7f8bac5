"""Answers of backends that speak HTTP/2, remembered: fields that come again need not be read and spelt again.

Bounded; a full memory is dropped whole. One for a worker: a header block towards clients says the same on every
connection.
"""

from typing import NamedTuple

from lbproxy.wire.head import Lines, ResponseHead
from lbproxy.wire.headers import is_dated
from lbproxy.wire.http2.backend_heads import response_head
from lbproxy.wire.http2.encoder import EncodedLines
from lbproxy.wire.http2.errors import MalformedMessage
from lbproxy.wire.http2.hpack import Fields
from lbproxy.wire.http2.request import trailers_of
from lbproxy.wire.http2.response import fixed_block, trailers_block
from lbproxy.wire.lines import bad_response

MOST_KEPT = 512  # of each kind


class KnownAnswer(NamedTuple):
    head: ResponseHead
    block: bytes  # for the client; what belongs to one answer alone goes behind it
    is_dated: bool


class AnswerMemory:
    def __init__(self, encoded: EncodedLines) -> None:
        self._encoded = encoded
        self._lines = Lines()
        self._heads: dict[Fields, KnownAnswer] = {}
        self._trailers: dict[Fields, bytes] = {}

    def head(self, fields: Fields) -> KnownAnswer:
        """Raises Refused (502)."""
        known = self._heads.get(fields)
        if known is None:
            head = response_head(fields, self._lines)
            known = KnownAnswer(head, fixed_block(head, self._encoded), is_dated(head))
            if len(self._heads) >= MOST_KEPT:
                self._heads.clear()
            self._heads[fields] = known
        return known

    def trailers(self, fields: Fields) -> bytes:
        """A block for the client; empty if none of them may pass. Raises Refused (502)."""
        known = self._trailers.get(fields)
        if known is None:
            try:
                known = trailers_block(trailers_of(fields), self._encoded)
            except MalformedMessage as problem:
                raise bad_response(f"malformed trailers: {problem}") from None
            if len(self._trailers) >= MOST_KEPT:
                self._trailers.clear()
            self._trailers[fields] = known
        return known
