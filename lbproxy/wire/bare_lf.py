"""Heads of simple servers whose lines end in a bare LF, made strict (RFC 9112, 2.2: a recipient may accept them).

Knows line ends and nothing else: what the head says is judged afterwards, by the same rules as every other head. Used
for responses of pools with `accept_bare_lf`, never for requests.
"""

import re

_empty_line = re.compile(rb"\n\r?\n").search
_bare_lf = re.compile(rb"(?<!\r)\n").sub


def with_crlf(data: bytes | bytearray) -> bytes:
    """`data` with CRLF at the end of each line up to and with the first empty line. What is behind that stays as it is.

    A head may come in pieces: the result and what came behind it can be given again.
    """
    found = _empty_line(data)
    end = found.end() if found is not None else len(data)
    return _bare_lf(b"\r\n", bytes(data[:end])) + bytes(data[end:])
