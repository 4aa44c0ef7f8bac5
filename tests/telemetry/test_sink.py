import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbproxy.telemetry.line_copies import LineCopies
from lbproxy.telemetry.sink import Sink


class Pipe:
    """A real pipe whose reader decides when it reads."""

    def __init__(self) -> None:
        self.read_fd, self.write_fd = os.pipe()
        self.sinks: list[Sink] = []

    def sink(self, queue_bytes: int = 1_000_000) -> Sink:
        self.sinks.append(Sink(self.write_fd, queue_bytes=queue_bytes))
        return self.sinks[-1]

    def read_until(self, enough: bytes) -> bytes:
        data = b""
        while enough not in data:
            piece = os.read(self.read_fd, 65536)
            assert piece, f"end of file before {enough!r}"
            data += piece
        return data

    def close(self) -> None:
        os.close(self.read_fd)  # a writer that is stuck gets EPIPE and goes on
        for sink in self.sinks:
            sink.close(5)
        os.close(self.write_fd)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


def say(lines: int) -> bytes:
    return b"(lost %d)\n" % lines


def test_lines_arrive_in_order_and_close_waits_for_them(pipe: Pipe) -> None:
    sink = pipe.sink()
    for number in range(500):
        sink.write(b"line %d\n" % number)
    sink.close(5)
    assert pipe.read_until(b"line 499\n") == b"".join(b"line %d\n" % number for number in range(500))
    assert sink.dropped == 0
    assert sink.backlog_bytes == 0


def test_a_pipe_that_nobody_reads_costs_lines_and_never_blocks(pipe: Pipe) -> None:
    sink = pipe.sink(queue_bytes=100_000)
    sink.describe_losses(say)
    begin = time.perf_counter()
    for _ in range(20_000):
        sink.write(b"x" * 99 + b"\n")
    assert time.perf_counter() - begin < 1
    assert sink.dropped > 15_000
    assert sink.backlog_bytes <= 100_000


def test_what_was_lost_is_said_once_lines_flow_again(pipe: Pipe) -> None:
    sink = pipe.sink(queue_bytes=100_000)
    sink.describe_losses(say)
    for _ in range(5_000):
        sink.write(b"x" * 99 + b"\n")
    lost = sink.dropped
    text = pipe.read_until(b"(lost ")
    while text.count(b"x" * 99 + b"\n") < 5_000 - lost:
        text += os.read(pipe.read_fd, 65536)
    sink.write(b"after\n")
    text += pipe.read_until(b"after\n")
    said = [int(line[6:-1]) for line in text.splitlines() if line.startswith(b"(lost")]
    assert sum(said) == lost
    assert sink.dropped == lost


def test_closing_a_stalled_sink_waits_only_as_long_as_it_may(pipe: Pipe) -> None:
    sink = pipe.sink()
    for _ in range(1_000):
        sink.write(b"x" * 199 + b"\n")
    begin = time.perf_counter()
    sink.close(0.05)
    assert time.perf_counter() - begin < 1
    sink.write(b"too late\n")
    assert sink.dropped == 1


def test_a_full_disk_costs_lines_and_is_counted() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        sink = Sink(full)
        sink.describe_losses(say)
        for _ in range(100):
            sink.write(b"one\ntwo\n")
        sink.close(5)
    finally:
        os.close(full)
    assert sink.dropped == 200


def test_a_reader_that_has_gone_costs_lines_and_is_counted() -> None:
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    sink = Sink(write_fd)
    sink.write(b"one\ntwo\n")
    sink.close(5)
    os.close(write_fd)
    assert sink.dropped == 2


def test_a_line_that_was_cut_is_ended_before_the_next_one(tmp_path: Path) -> None:
    """A file-size limit cuts a write in the middle as a full disk does."""
    script = """
import resource, signal, sys
from lbproxy.telemetry.line_copies import LineCopies
from lbproxy.telemetry.sink import Sink
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10, resource.RLIM_INFINITY))
sink = Sink(sys.argv[1])
sink.write(b"first\\nsecond\\nthird\\n")
while sink.backlog_bytes:
    pass
assert sink.dropped == 2, sink.dropped
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
sink.write(b"fourth\\n")
sink.close(5)
"""
    path = tmp_path / "log"
    subprocess.run([sys.executable, "-c", script, str(path)], check=True, timeout=20)
    assert path.read_bytes() == b"first\nseco\nfourth\n"


def test_lines_of_two_processes_on_one_pipe_stay_whole(pipe: Pipe) -> None:
    sinks = [pipe.sink(), pipe.sink()]
    lines = [b"a" * 700 + b"\n", b"b" * 900 + b"\n"]
    for _ in range(200):
        for sink, line in zip(sinks, lines, strict=True):
            sink.write(line * 5)
    text = b""
    while text.count(b"\n") < 2 * 200 * 5:
        text += os.read(pipe.read_fd, 65536)
    assert set(text.splitlines(keepends=True)) == set(lines)


def test_a_line_longer_than_a_batch_arrives(pipe: Pipe) -> None:
    sink = pipe.sink()
    sink.write(b"short\n" + b"y" * 10_000 + b"\nend\n")
    assert pipe.read_until(b"end\n") == b"short\n" + b"y" * 10_000 + b"\nend\n"
    sink.close(5)


def test_a_descriptor_that_somebody_made_non_blocking_is_waited_for(pipe: Pipe) -> None:
    os.set_blocking(pipe.write_fd, False)
    sink = pipe.sink()
    for _ in range(100):
        sink.write(b"z" * 2_000 + b"\n")
    sink.write(b"end\n")
    assert pipe.read_until(b"end\n").count(b"\n") == 101
    sink.close(5)
    assert sink.dropped == 0


def test_reopening_goes_on_in_a_new_file_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log"
    sink = Sink(str(path))
    sink.write(b"before\n")
    path.rename(tmp_path / "log.1")
    sink.reopen()
    sink.write(b"after\n")
    sink.close(5)
    assert (tmp_path / "log.1").read_bytes() + path.read_bytes() == b"before\nafter\n"
    assert path.read_bytes() == b"after\n"


def test_a_file_that_cannot_be_reopened_is_said_and_the_old_one_stays(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    sink = Sink(str(folder / "log"))
    folder.rename(tmp_path / "moved")
    with pytest.raises(FileNotFoundError):
        sink.reopen()
    sink.write(b"still\n")
    sink.close(5)
    assert (tmp_path / "moved" / "log").read_bytes() == b"still\n"


def test_a_file_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"old\n")
    sink = Sink(str(path))
    sink.write(b"new\n")
    sink.close(5)
    assert path.read_bytes() == b"old\nnew\n"


def test_a_fifo_that_nobody_reads_is_refused_instead_of_blocking(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="No such device"):
        Sink(str(tmp_path / "fifo"))


def test_what_is_written_is_kept_for_readers_also_where_the_disk_is_full() -> None:
    copies = LineCopies()
    with open("/dev/full", "wb") as full:
        sink = Sink(full.fileno(), copies=copies)
        sink.write(b"one\ntwo\n")
        sink.close(5)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    copies.add(theirs, follow=False)
    assert ours.recv(100) == b"one\ntwo\n"
    ours.close()
