"""Bytes through a pipe in the kernel: all of them, in order, and none of them to anybody else."""

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest

from lbproxy.worker.io import splice
from lbproxy.worker.io.splice import KEPT_PIPES, MOST_PIPES, Pipe, Pipes

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pipes() -> Iterator[Pipes]:
    kept = Pipes()
    yield kept
    kept.close()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    one = Pipe()
    yield one
    one.close()


@pytest.fixture
def source() -> Iterator[Pair]:
    yield from pair()


@pytest.fixture
def target() -> Iterator[Pair]:
    yield from pair()


def pair() -> Iterator[Pair]:
    left, right = socket.socketpair()
    left.setblocking(False)
    right.setblocking(False)
    yield left, right
    left.close()
    right.close()


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


def taken(pipes: Pipes) -> Pipe:
    pipe = pipes.take()
    assert pipe is not None
    return pipe


def test_what_goes_in_comes_out(pipe: Pipe, source: Pair, target: Pair) -> None:
    source[0].send(b"hello world")
    assert pipe.fill(source[1].fileno(), 100) == pipe.held == 11
    pipe.drain(target[0].fileno())
    assert pipe.held == 0
    assert target[1].recv(100) == b"hello world"


def test_no_more_is_taken_than_was_asked_for(pipe: Pipe, source: Pair) -> None:
    source[0].send(b"hello world")
    assert pipe.fill(source[1].fileno(), 5) == 5
    assert source[1].recv(100) == b" world"


def test_the_end_is_told(pipe: Pipe, source: Pair) -> None:
    source[0].close()
    assert pipe.fill(source[1].fileno(), 5) == 0


def test_nothing_to_move_blocks_nobody(pipe: Pipe, source: Pair, target: Pair) -> None:
    with pytest.raises(BlockingIOError):
        pipe.fill(source[1].fileno(), 5)
    with suppress(BlockingIOError):
        while True:
            target[0].send(bytes(1 << 16))
    source[0].send(b"hello")
    pipe.fill(source[1].fileno(), 5)
    with pytest.raises(BlockingIOError):
        pipe.drain(target[0].fileno())
    assert pipe.held == 5


def test_a_target_that_is_gone_is_an_error(pipe: Pipe, source: Pair, target: Pair) -> None:
    source[0].send(b"hello")
    pipe.fill(source[1].fileno(), 5)
    target[1].close()
    with pytest.raises(BrokenPipeError):
        pipe.drain(target[0].fileno())


def test_an_empty_pipe_is_used_again_and_one_with_bytes_left_never(pipes: Pipes, source: Pair) -> None:
    before = open_fds()
    pipe = taken(pipes)
    pipes.give_back(pipe)
    assert taken(pipes) is pipe
    source[0].send(b"secret")
    pipe.fill(source[1].fileno(), 6)
    pipes.give_back(pipe)
    assert open_fds() == before
    other = taken(pipes)
    assert other is not pipe
    pipes.give_back(other)


def test_only_so_many_are_kept(pipes: Pipes) -> None:
    before = open_fds()
    for pipe in [taken(pipes) for _ in range(KEPT_PIPES + 5)]:
        pipes.give_back(pipe)
    assert open_fds() - before == 2 * KEPT_PIPES


def test_no_more_than_so_many_are_in_use(pipes: Pipes) -> None:
    in_use = [taken(pipes) for _ in range(MOST_PIPES)]
    assert pipes.take() is None
    pipes.give_back(in_use.pop())
    in_use.append(taken(pipes))
    for pipe in in_use:
        pipes.give_back(pipe)


def test_one_that_is_granted_hardly_any_memory_is_none(pipes: Pipes, monkeypatch: pytest.MonkeyPatch) -> None:
    before = open_fds()
    monkeypatch.setattr(splice, "PIPE_BYTES", 4096)
    assert pipes.take() is None
    assert open_fds() == before


def test_what_it_holds_can_be_read_after_all(pipe: Pipe, source: Pair) -> None:
    source[0].send(b"hello world")
    pipe.fill(source[1].fileno(), 100)
    assert pipe
    assert pipe.read() == b"hello world"
    assert not pipe


def test_a_child_inherits_none(pipe: Pipe) -> None:
    assert not os.get_inheritable(pipe._read)
    assert not os.get_inheritable(pipe._write)


def test_without_a_descriptor_left_there_is_none(pipes: Pipes) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    filler = [os.dup(0)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (filler[0] + 1, hard))
    try:
        assert pipes.take() is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.close(filler[0])


def test_pipes_that_no_body_needs_are_closed_after_a_minute():
    pipes = Pipes()
    taken = [pipes.take() for _ in range(3)]
    for pipe in taken:
        pipes.give_back(pipe)
    pipes.sweep(100.0)
    assert len(pipes._kept) == 3
    pipes.give_back(pipes.take())  # one is enough now
    pipes.sweep(130.0)
    assert len(pipes._kept) == 3
    pipes.sweep(160.0)
    assert len(pipes._kept) == 1
    pipes.sweep(220.0)
    assert pipes._kept == []
    pipes.close()
