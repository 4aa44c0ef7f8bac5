"""Heads of streams: read, known again by identity, by their bytes, or by a template."""

from lbproxy.address import Address
from lbproxy.model import ListenerView
from lbproxy.settings import ListenerLimits, ListenerSettings
from lbproxy.wire.headers import ClientFacts
from lbproxy.wire.http2.encoder import EncodedLines
from lbproxy.worker.http2.read_head import ReadHead, StreamHeads, read_again, read_head

VIEW = ListenerView(
    1, 0, ListenerSettings("public", Address("127.0.0.1", 1), pool="web", limits=ListenerLimits(headers=3))
)
FACTS = ClientFacts(b"192.0.2.1", False, b"https")


def read(heads: StreamHeads, raw: bytes) -> ReadHead:
    made = ReadHead((), VIEW, raw, ends=True)
    read_head(made, heads)
    return made


def test_a_head_that_comes_again_is_shared_by_all_connections() -> None:
    heads = StreamHeads(EncodedLines())
    one, other = (read(heads, b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n") for _ in range(2))
    assert one.head.is_http2
    for made in (one, other):
        read_again(made, heads, FACTS)
    assert one.cached is other.cached
    assert one.head is other.head
    assert one.raw is other.raw


def test_heads_that_are_alike_are_read_by_a_template() -> None:
    heads = StreamHeads(EncodedLines())
    made = [read(heads, b"GET /%d HTTP/1.1\r\nHost: a\r\nCookie: n=%d\r\n\r\n" % (n, n)) for n in range(4)]
    assert made[3].match is not None
    assert made[3].head.is_http2
    read_again(made[3], heads, FACTS)
    assert made[3].head.target == b"/3"
    assert made[3].head.is_http2


def test_what_is_hard_is_for_a_task_and_says_why() -> None:
    heads = StreamHeads(EncodedLines())
    assert read(heads, b"GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n").why == "expect"
    assert (
        read(heads, b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n").why == "upgrade"
    )
    assert read(heads, b"GET / HTTP/1.1\r\n\r\n").why == "refused"
    assert read(heads, b"GET / HTTP/1.1\r\nHost: a\r\nA: 1\r\nB: 1\r\nC: 1\r\n\r\n").why == "refused"
