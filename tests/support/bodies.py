"""Bodies that tests send: of a size that fits no buffer, framed in either way."""

import hashlib
from collections.abc import Iterator

MB = 1024 * 1024
LARGE = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(3 * MB // 32))


def chunks_of(data: bytes, size: int) -> Iterator[bytes]:
    """The body in chunks; every other chunk has an extension."""
    for number, at in enumerate(range(0, len(data), size)):
        piece = data[at : at + size]
        yield b"%x%b\r\n%b\r\n" % (len(piece), b";a=b" if number % 2 else b"", piece)


def framed(data: bytes, framing: str, size: int = 50_000) -> tuple[bytes, list[bytes]]:
    """The field that frames the body, and the pieces of the body."""
    if framing == "length":
        return b"Content-Length: %d" % len(data), [data[at : at + size] for at in range(0, len(data), size)]
    return b"Transfer-Encoding: chunked", [*chunks_of(data, size), b"0\r\nX-Sum: 1\r\n\r\n"]
