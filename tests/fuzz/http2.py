"""HTTP/2 under any bytes: connections beside h2, header blocks beside hpack, field lists spelt as heads of HTTP/1."""

import hpack
import hpack.exceptions
from support.http2_oracle import compare, told_at_cuts
from support.http2_scripts import Peer

from fuzz.heads import cuts_of, pieces_of
from lbproxy.wire.head import Lines, Refused, read_request
from lbproxy.wire.http1 import confirm_request
from lbproxy.wire.http2.encoder import EncodedLines
from lbproxy.wire.http2.errors import ConnectionFailed, MalformedMessage
from lbproxy.wire.http2.hpack import Decoder
from lbproxy.wire.http2.request import spell_request
from lbproxy.wire.http2.response import trailers_block

KEY = b"a2V5"


def server(data: bytes) -> None:
    _connection(data, client=False)


def client(data: bytes) -> None:
    _connection(data, client=True)


def _connection(data: bytes, *, client: bool) -> None:
    cuts, raw = cuts_of(data)
    whole = told_at_cuts([raw], [], client=client)
    assert told_at_cuts([raw], cuts, client=client) == whole, "another cut, another reading"
    if len(raw) < 100:
        assert told_at_cuts([raw], list(range(1, len(raw))), client=client) == whole, "another cut, another reading"
    compare(list(_frames(raw)), client=client)


def _frames(raw: bytes) -> list[bytes]:
    """Whole ones."""
    found = []
    while len(raw) >= 9 and len(raw) >= (end := 9 + int.from_bytes(raw[:3], "big")):
        found.append(raw[:end])
        raw = raw[end:]
    return found


def blocks(data: bytes) -> None:
    """Every piece is a block of the same connection."""
    pieces, _ = pieces_of(data)
    ours, oracle = Decoder(max_list_bytes=1 << 20), hpack.Decoder(max_header_list_size=1 << 20)
    for block in pieces:
        try:
            fields = ours.decode(block)
        except ConnectionFailed:
            return
        assert fields == tuple((name, value) for name, value in oracle.decode(block, raw=True))
        table = list(ours._table)
        if fields is ours.decode(block):
            assert ours._table == table
        else:
            oracle.decode(block, raw=True)
        lines = [(name, value) for name, value in fields if b":" not in name and value.strip(b" \t") == value]
        encoded = trailers_block([name + b": " + value for name, value in lines], EncodedLines())
        due = [(name.lower(), value) for name, value in lines]
        assert [tuple(pair) for pair in hpack.Decoder(max_header_list_size=1 << 20).decode(encoded, raw=True)] == due


def request(data: bytes) -> None:
    """A list of fields: names and values with a control byte between them."""
    end = bool(data[:1] and data[0] & 1)
    texts = data[1:].split(b"\x1f")
    fields = tuple(zip(texts[::2], texts[1::2], strict=False))
    try:
        raw = spell_request(fields, end=end, websocket_key=KEY)
    except MalformedMessage:
        return
    lines = raw.split(b"\r\n")
    assert lines[-2:] == [b"", b""]
    assert b"\r" not in b"".join(lines)
    assert b"\n" not in b"".join(lines)
    given = sum(name[:1] != b":" and name not in (b"host", b"cookie", b"sec-websocket-key") for name, _ in fields)
    assert given <= len(lines) - 3 <= given + 6
    try:
        head = read_request(raw, Lines(), 1000)
    except Refused:
        return
    confirm_request(raw, head)
    methods = [value for name, value in fields if name == b":method"]
    paths = [value for name, value in fields if name == b":path"]
    assert methods in ([head.method], [b"CONNECT"])
    assert paths == [head.target]


def _sample(seed: int, *, server: bool) -> bytes:
    return b"".join(step for step in Peer(seed, server=server).steps() if isinstance(step, bytes))[:1500]


SERVER = [_sample(seed, server=False) for seed in range(40)]
CLIENT = [_sample(seed, server=True) for seed in range(40)]
BLOCKS = [
    bytes.fromhex(text)
    for text in (
        "828684418cf1e3c2e5f23a6ba0ab90f4ff828684be5886a8eb10649cbf",
        "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
        "203fe11f4803333032580770726976617465c0bf",
        "10017801790001610162be",
    )
]
_START = b":method\x1fGET\x1f:scheme\x1fhttps\x1f:path\x1f/x?y\x1f"
REQUESTS = [
    flag + fields
    for flag in (b"\0", b"\1")
    for fields in (
        _START + b":authority\x1fa\x1fcookie\x1fa=b\x1fcookie\x1fc=d",
        _START + b"host\x1fa:80\x1fcontent-length\x1f0",
        _START.replace(b"GET", b"CONNECT") + b":authority\x1fa\x1f:protocol\x1fwebsocket",
        _START.replace(b"GET", b"OPTIONS").replace(b"/x?y", b"*") + b":authority\x1f[::1]\x1fte\x1ftrailers",
    )
]
