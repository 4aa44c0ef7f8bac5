"""The header block of an answer that a template has read (wire/head_template.py): fixed parts, and values between them.

The facts are those of response.fixed_block; values that differ from answer to answer are not put in Huffman code, and
no memory of lines is filled with them.
"""

from typing import Final

from lbproxy.wire.head_template import ResponseTemplate, Values
from lbproxy.wire.http2.encoder import EncodedLines, begun_field, field, plain_string
from lbproxy.wire.http2.response import via_line

_LENGTH: Final = begun_field(b"content-length")


class AnswerTemplate:
    __slots__ = ("_behind", "_first", "_has_length", "_template", "_via")

    def __init__(self, template: ResponseTemplate, encoded: EncodedLines) -> None:
        head = template.sample
        self._template = template
        self._has_length = template.has_length and head.status != 204
        blanks = {name + b": " + mark: name for name, mark in template.blanks.passed}
        parts = [field(b":status", b"%d" % head.status)]
        for line in head.lines:
            if name := blanks.get(line):
                parts[-1] += begun_field(name.lower())
                parts.append(b"")
            else:
                parts[-1] += encoded[line]
        if not self._has_length and head.length is not None and head.status != 204:
            parts[-1] += encoded[b"content-length: %d" % head.length]
        self._via = encoded[via_line(head)]
        self._first, *self._behind = parts

    def block(self, values: Values) -> bytes:
        """All but what belongs to this answer alone (response.own_block)."""
        parts = [self._first]
        for value, behind in zip(values, self._behind, strict=False):  # a length comes last
            parts += (plain_string(value), behind)
        if self._has_length:
            parts += (_LENGTH, plain_string(b"%d" % (self._template.length(values) or 0)))
        parts.append(self._via)
        return b"".join(parts)
