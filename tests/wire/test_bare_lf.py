"""Heads with bare line feeds are made strict; everything else stays as it was."""

import pytest
from support.each import each

from lbproxy.wire.bare_lf import with_crlf
from lbproxy.wire.head import Lines, Refused, read_response, response_head_end

BARE = b"HTTP/1.1 200 OK\nContent-Length: 5\nX: a\r\nY: b\n\r\nhel\nlo"
STRICT = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: a\r\nY: b\r\n\r\nhel\nlo"


@each(range(len(BARE) + 1))
def test_a_head_is_made_strict_whatever_the_cut(cut: int) -> None:
    assert with_crlf(with_crlf(BARE[:cut]) + BARE[cut:]) == STRICT
    assert with_crlf(STRICT) == STRICT


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\nA: b\r\r\n\n",
        b"HTTP/1.1 200 OK\nA: b\rC: d\n\n",
        b"HTTP/1.1 200 OK\nA: b\n c\n\n",
        b"HTTP/1.1 200 OK\nA: \0\n\n",
        b"HTTP/1.1 200 OK\nContent-Length: 5\nContent-Length: 6\n\n",
        b"HTTP/1.1 200 OK\nContent-Length: 5\nTransfer-Encoding: chunked\n\n",
    ],
)
def test_nothing_else_is_loosened(said: bytes) -> None:
    with pytest.raises(Refused):
        read(with_crlf(said))


def read(made: bytes) -> None:
    read_response(made[: response_head_end(made, 0)], Lines())
