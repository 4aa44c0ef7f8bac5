"""Bytes through a pipe in the kernel: all of them, in order, and none of them to anybody else."""

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest

from lbproxy.worker import splice
from lbproxy.worker.splice import KEPT_PIPES, Pipe

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture(autouse=True)
def _no_pipes_from_before() -> Iterator[None]:
    yield
    while splice._kept:
        pipe = splice._kept.pop()
        pipe.held = 1
        pipe.give_back()


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


def taken() -> Pipe:
    pipe = Pipe.take()
    assert pipe is not None
    return pipe


def test_what_goes_in_comes_out(source: Pair, target: Pair) -> None:
    pipe = taken()
    source[0].send(b"hello world")
    assert pipe.fill(source[1].fileno(), 100) == pipe.held == 11
    pipe.drain(target[0].fileno())
    assert pipe.held == 0
    assert target[1].recv(100) == b"hello world"
    pipe.give_back()


def test_no_more_is_taken_than_was_asked_for(source: Pair) -> None:
    pipe = taken()
    source[0].send(b"hello world")
    assert pipe.fill(source[1].fileno(), 5) == 5
    assert source[1].recv(100) == b" world"
    pipe.give_back()


def test_the_end_is_told(source: Pair) -> None:
    pipe = taken()
    source[0].close()
    assert pipe.fill(source[1].fileno(), 5) == 0
    pipe.give_back()


def test_nothing_to_move_blocks_nobody(source: Pair, target: Pair) -> None:
    pipe = taken()
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
    pipe.give_back()


def test_a_target_that_is_gone_is_an_error(source: Pair, target: Pair) -> None:
    pipe = taken()
    source[0].send(b"hello")
    pipe.fill(source[1].fileno(), 5)
    target[1].close()
    with pytest.raises(BrokenPipeError):
        pipe.drain(target[0].fileno())
    pipe.give_back()


def test_an_empty_pipe_is_used_again_and_one_with_bytes_left_never(source: Pair) -> None:
    before = open_fds()
    pipe = taken()
    pipe.give_back()
    assert taken() is pipe
    source[0].send(b"secret")
    pipe.fill(source[1].fileno(), 6)
    pipe.give_back()
    assert open_fds() == before
    other = taken()
    assert other is not pipe
    other.give_back()


def test_only_so_many_are_kept() -> None:
    before = open_fds()
    pipes = [taken() for _ in range(KEPT_PIPES + 5)]
    for pipe in pipes:
        pipe.give_back()
    assert open_fds() - before == 2 * KEPT_PIPES


def test_a_child_inherits_none() -> None:
    pipe = taken()
    assert not os.get_inheritable(pipe._read)
    assert not os.get_inheritable(pipe._write)
    pipe.give_back()


def test_without_a_descriptor_left_there_is_none() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    filler = [os.dup(0)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (filler[0] + 1, hard))
    try:
        assert Pipe.take() is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.close(filler[0])
