"""How much to read at once: as much as the last message makes one expect."""

import socket
from typing import Protocol

RECV_BYTES = 16 * 1024  # fits most messages; a larger buffer is allocated only where a body fills it
# With the 33 bytes around a bytes object this is the largest block that the interpreter has at hand itself. A larger
# one comes from malloc, and goes back to it in two pieces: 0.9 us of a request, with 2,000 clients.
SMALL_RECV_BYTES = 479
SMALL_BYTES = 400
LARGE_RECV_BYTES = 64 * 1024 + 1024  # a body that is read at once, and its head: in two reads it would be copied again


class Reader(Protocol):
    sock: socket.socket
    recv_bytes: int


def room_for(size: int) -> int:
    """`recv_bytes` after a message of `size` bytes."""
    return SMALL_RECV_BYTES if size <= SMALL_BYTES else RECV_BYTES


def room_for_answer(size: int) -> int:
    """`recv_bytes` after an answer of `size` bytes."""
    return room_for(size) if size <= RECV_BYTES else LARGE_RECV_BYTES


def read_on(reader: Reader, data: bytes) -> bytes:
    """`data` has filled the room that there was: with what stands behind it. An end is left to the next read."""
    reader.recv_bytes = RECV_BYTES
    try:
        return data + reader.sock.recv(RECV_BYTES)
    except OSError:
        return data
