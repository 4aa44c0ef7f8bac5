import socket
from collections.abc import Iterator

import pytest

from lbproxy.telemetry.line_copies import END_OF_RECENT, MESSAGE_BYTES, RECENT_BYTES, LineCopies


class Reader:
    """Our end and the one that the copies own."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.ours.settimeout(5)

    def read(self) -> bytes:
        return self.ours.recv(MESSAGE_BYTES)

    def recent(self) -> bytes:
        lines = b""
        while (message := self.read()) != END_OF_RECENT:
            lines += message
        return lines


@pytest.fixture
def copies() -> Iterator[LineCopies]:
    copies = LineCopies()
    yield copies
    copies.close()


def test_a_reader_gets_the_recent_lines_and_then_the_end(copies: LineCopies) -> None:
    copies.put(b"one\ntwo\n")
    reader = Reader()
    copies.add(reader.theirs, follow=False)
    copies.put(b"three\n")
    assert reader.recent() == b"one\ntwo\n"
    assert reader.read() == b"", "the end of the connection"
    reader.ours.close()


def test_one_that_follows_gets_what_comes(copies: LineCopies) -> None:
    reader = Reader()
    copies.add(reader.theirs, follow=True)
    assert reader.recent() == b""
    copies.put(b"one\n")
    copies.put(b"two\n")
    assert (reader.read(), reader.read()) == (b"one\n", b"two\n")
    copies.close()
    assert reader.read() == b""
    reader.ours.close()


def test_only_so_much_is_kept_and_lines_stay_whole(copies: LineCopies) -> None:
    for number in range(2000):
        copies.put(b"%0100d\n" % number * 10)
    copies.put(b"".join(b"%0100d\n" % number for number in range(2000)))
    reader = Reader()
    copies.add(reader.theirs, follow=False)
    recent = reader.recent()
    assert len(recent) <= RECENT_BYTES
    assert {len(line) for line in recent.splitlines()} == {100}
    assert recent.endswith(b"%0100d\n" % 1999)
    reader.ours.close()


def test_a_reader_that_does_not_read_misses_whole_messages_and_blocks_nobody(copies: LineCopies) -> None:
    reader = Reader()
    copies.add(reader.theirs, follow=True)
    for number in range(3000):
        copies.put(b"%0199d\n" % number)
    copies.put(b"x" * 3 * MESSAGE_BYTES + b"\n")  # a line longer than a message
    assert reader.recent() == b""
    assert int(reader.read()) == 0
    reader.ours.close()


def test_readers_that_have_gone_are_forgotten(copies: LineCopies) -> None:
    gone, other = Reader(), Reader()
    copies.add(gone.theirs, follow=True)
    gone.ours.close()
    copies.add(other.theirs, follow=True)
    assert gone.theirs.fileno() == -1
    other.ours.close()
    copies.put(b"one\n")
    assert other.theirs.fileno() == -1
