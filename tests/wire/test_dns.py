"""A question for CAA records, and every kind of answer."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.wire.dns import Caa, answer, question

ASKED = question(0x1234, "a.example")


def replied(*records: bytes, flags: int = 0x8180, count: int | None = None) -> bytes:
    counts = (1, len(records) if count is None else count, 0, 0)
    header = b"\x12\x34" + flags.to_bytes(2) + b"".join(one.to_bytes(2) for one in counts)
    return header + ASKED[12:] + b"".join(records)


def record(data: bytes, kind: int = 257, name: bytes = b"\xc0\x0c") -> bytes:
    return name + kind.to_bytes(2) + b"\0\1" + bytes(4) + len(data).to_bytes(2) + data


def caa(tag: bytes, value: bytes, flags: int = 0) -> bytes:
    return record(bytes([flags, len(tag)]) + tag + value)


def test_a_question_is_what_the_rfc_draws() -> None:
    assert bytes.fromhex("1234 0100 0001 0000 0000 0000 01 61 07 6578616d706c65 00 0101 0001") == ASKED
    with pytest.raises(ValueError, match="no name"):
        question(1, "a..example")


def test_records_are_read_behind_an_alias() -> None:
    alias = record(b"\x01b\xc0\x0e", kind=5, name=b"\x01a\x07example\0")
    found = answer(replied(alias, caa(b"issue", b"CA.example; policy=ev"), caa(b"ISSUE", b";", 128)), ASKED)
    assert found == (Caa(False, "issue", "ca.example"), Caa(True, "issue", ""))


def test_a_name_without_records_or_that_is_not_there_has_none() -> None:
    assert answer(replied(), ASKED) == ()
    assert answer(replied(flags=0x8183), ASKED) == ()


@pytest.mark.parametrize(("flags", "said"), [(0x8182, "SERVFAIL"), (0x8185, "REFUSED"), (0x8380, "too long")])
def test_a_resolver_that_cannot_say_is_an_error(flags: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        answer(replied(flags=flags), ASKED)


def test_an_answer_to_another_question_is_not_taken() -> None:
    for other in (b"", b"\x12\x35" + replied()[2:], replied(flags=0x0100), replied().replace(b"example", b"another")):
        with pytest.raises(LookupError):
            answer(other, ASKED)


@pytest.mark.parametrize("cut", range(len(ASKED), len(replied(caa(b"issue", b"ca.example")))))
def test_a_cut_answer_is_an_error(cut: int) -> None:
    with pytest.raises(ValueError, match="cut off"):
        answer(replied(caa(b"issue", b"ca.example"))[:cut], ASKED)


@given(st.binary(max_size=60))
def test_nothing_that_comes_breaks_it(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        answer(replied(count=2) + data, ASKED)
