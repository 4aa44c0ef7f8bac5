"""Answers of HTTP/2 backends are read once, and refused as often as they are malformed."""

import pytest
from hpack import Decoder

from lbproxy.wire.head import Refused
from lbproxy.wire.http2.encoder import EncodedLines
from lbproxy.worker.http2.answer_memory import MOST_KEPT, AnswerMemory


def test_the_same_fields_give_the_same_answer() -> None:
    memory = AnswerMemory(EncodedLines())
    fields = ((b":status", b"200"), (b"content-type", b"application/grpc"), (b"x", b"1"))
    known = memory.head(fields)
    assert memory.head(tuple(fields)) is known
    assert known.head.status == 200
    assert not known.is_dated
    assert Decoder().decode(known.block, raw=True) == [*fields, (b"via", b"1.1 lbproxy")]
    told = ((b"grpc-status", b"0"), (b"content-length", b"3"))
    assert memory.trailers(told) is memory.trailers(told)
    assert Decoder().decode(memory.trailers(told), raw=True) == [(b"grpc-status", b"0")]


def test_what_is_malformed_is_refused_every_time() -> None:
    memory = AnswerMemory(EncodedLines())
    for _ in range(2):
        for bad in ((), ((b"x", b"1"),), ((b":status", b"200"), (b"Upper", b"1"))):
            with pytest.raises(Refused):
                memory.head(bad)
        with pytest.raises(Refused):
            memory.trailers(((b":status", b"1"),))


def test_the_memory_is_bounded() -> None:
    memory = AnswerMemory(EncodedLines())
    for number in range(3 * MOST_KEPT):
        memory.head(((b":status", b"200"), (b"x", b"%d" % number)))
        memory.trailers(((b"x", b"%d" % number),))
    assert len(memory._heads) <= MOST_KEPT
    assert len(memory._trailers) <= MOST_KEPT
