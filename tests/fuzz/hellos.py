"""ClientHellos under any bytes: a hello or NotClientHello, and every cut reads alike."""

import ssl
from contextlib import suppress

from fuzz.heads import pieces_of
from lbproxy.wire.client_hello import ClientHello, ClientHelloReader, NotClientHello, Spoken


def client_hello(data: bytes) -> None:
    pieces, raw = pieces_of(data)
    whole = _read([raw])
    cut = _read(pieces)
    # How the bytes come decides which of two problems is met first.
    assert cut == whole or (isinstance(cut, Spoken) and isinstance(whole, Spoken)), (cut, whole)
    if len(raw) <= 600:
        single = _read([raw[at : at + 1] for at in range(len(raw))])
        assert single == whole or (isinstance(single, Spoken) and isinstance(whole, Spoken)), (single, whole)


def _read(pieces: list[bytes]) -> ClientHello | Spoken | None:
    reader = ClientHelloReader()
    try:
        for piece in pieces:
            if (hello := reader.feed(piece)) is not None:
                return hello
    except NotClientHello as exc:
        return exc.spoken
    return None


def _of_openssl() -> bytes:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["h2", "http/1.1"])
    sent = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname="app.example.com").do_handshake()
    return sent.read()


_HELLO = _of_openssl()
_SMALL = b"".join(b"\x16\x03\x01\x00\x01" + _HELLO[at : at + 1] for at in range(5, len(_HELLO)))
SEEDS = [_HELLO, _SMALL, b"GET / HTTP/1.1\r\n", b"\x80\x2e\x01\x00\x02", b"\x15\x03\x01\x00\x02\x02\x28"]
