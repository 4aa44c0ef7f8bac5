"""The bytes of the document, the descriptors that it names, and what is refused in one line."""

import json
import os

import pytest

from control.handed_sample import document
from lbproxy.control.document import DocumentRefused, descriptors, read_document, write_document
from lbproxy.control.plain import plain


@pytest.fixture
def memory():
    opened = []

    def write(data: bytes) -> int:
        opened.append(os.memfd_create("test"))
        os.write(opened[-1], data)
        return opened[-1]

    yield write
    for fd in opened:
        os.close(fd)


def test_what_is_written_is_read():
    fd = write_document(document())
    assert read_document(fd) == document()
    assert read_document(fd) == document(), "a trial has read it before"
    os.close(fd)


def test_every_descriptor_is_found():
    assert sorted(descriptors(document())) == [*range(10, 20), 21, 30]
    assert 30 not in descriptors(document(upgrade=document().upgrade.__class__("u1", "0", 0.0, 0.0, -1, None)))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"version": 99}, "hands on its state in version 99, and this one reads version 1"),
        ({"link_version": 99}, "speak version 99"),
        ({"worker_count": "two"}, "makes no sense here: TypeError"),
        ({"fleet": None}, "makes no sense here"),
        ({"grid": {**plain(document().grid), "counters": ["LEASES"]}}, "count other things"),
    ],
)
def test_what_cannot_be_gone_on_from_is_refused_in_one_line(memory, changes, why):
    values = {**plain(document()), **changes}
    with pytest.raises(DocumentRefused, match=why) as refused:
        read_document(memory(json.dumps(values).encode()))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"\xff", b'{"version": 1}'])
def test_what_is_no_document_is_refused(memory, data):
    with pytest.raises(DocumentRefused):
        read_document(memory(data))


def test_a_descriptor_that_is_closed_is_refused():
    fd = os.memfd_create("test")
    os.close(fd)
    with pytest.raises(DocumentRefused, match="cannot be read"):
        read_document(fd)
