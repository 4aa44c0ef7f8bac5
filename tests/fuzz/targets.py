"""Every target by its name, and the inputs to begin with."""

import json
from collections.abc import Callable

from support.http_corpus import ACCEPTED_REQUESTS, ACCEPTED_RESPONSES, REFUSED_REQUESTS, REFUSED_RESPONSES

from fuzz import clients, http2
from fuzz.bodies import chunked_request, chunked_response, known_length
from fuzz.frames import events, websocket
from fuzz.heads import request_head, response_head
from fuzz.hellos import SEEDS, client_hello
from fuzz.pump import PARSERS, pump
from fuzz.values import control_api, link
from lbproxy.address import Address
from lbproxy.link.codec import encode
from lbproxy.link.messages import Applied, AskStats, Drained, LogFile, Publish, Stats, Stop, Unreachable, Welcome
from lbproxy.model import BackendId, BackendView, ListenerView, PoolView, RoutingTable
from lbproxy.settings import DrainSettings, ListenerSettings, PoolLimits, PoolTimeouts, RouteSettings
from lbproxy.wire.proxy_protocol import SIGNATURE, Endpoint, own_header, proxy_header

TARGETS: dict[str, Callable[[bytes], None]] = {
    "request_head": request_head,
    "response_head": response_head,
    "chunked_request": chunked_request,
    "chunked_response": chunked_response,
    "known_length": known_length,
    "websocket": websocket,
    "events": events,
    "client_hello": client_hello,
    "proxy_header": clients.proxy,
    "forwarded": clients.forwarded,
    "link": link,
    "control_api": control_api,
    "pump": pump,
    "http2_server": http2.server,
    "http2_client": http2.client,
    "http2_blocks": http2.blocks,
    "http2_request": http2.request,
}

_UNCUT, _CUT = b"\x00", b"\x03\x05\x02\x09"
_CHUNKS = [
    b"5\r\nhello\r\n0\r\n\r\nGET / HTTP/1.1\r\n",
    b'3;a="b";c\r\nabc\r\nA\r\n0123456789\r\n0\r\nX-Sum: 7\r\nCookie: a\r\n\r\nrest',
    b"0001\r\na\r\n00\r\n\r\n",
    b"5\r\nhel",
    b"5 \r\nhello\r\n0\r\n\r\n",
    b"0\r\nContent-Length: x\r\nTransfer-Encoding: y\r\nA : b\r\n\r\n",
    b"ffffffffffffffff\r\na",
    b"-1\r\na\r\n",
    b"3\nabc\n0\n\n",
    b"1\r\na\r\n" * 20,
]
_FRAMES = [
    b"\x81\x05hello",
    b"\x01\x02he\x89\x01p\x00\x01l\x80\x02lo\x88\x05\x03\xe8bye",
    b"\x82\x85abcdhello\x88\x82wxyz\x74\x91",
    b"\x82\x7e\x00\x80" + bytes(128),
    b"\x82\x7f\x00\x00\x00\x00\x00\x00\x00\x03abc\x8a\x00",
    b"\x82\x7f\x80\x00\x00\x00\x00\x00\x00\x03abc",
    b"\x88\x00\x81\x00",
    b"\x08\x00\x83\x00\x89\x7e",
    b"\xc1\x02zz\x41\x01a\x80\x00",
]
_EVENTS = [
    b"data: a\n\nid: 1\ndata: b\n\n",
    b"data: a\r\n\r\ndata: b\r\n\r",
    b"data: a\r\rdata: b\r\n\n",
    b"\xef\xbb\xbfdata: a\n\r\n",
    b": comment\n\nretry: 3\n",
]
_HEADERS = [
    b"PROXY TCP4 192.0.2.7 10.0.0.1 40000 80\r\nGET / HTTP/1.1\r\n",
    b"PROXY TCP6 2001:db8::7 ::1 40000 80\r\n",
    b"PROXY UNKNOWN ffff:f...f:ffff ffff 65535 65535\r\n",
    *(
        proxy_header("v2", Endpoint(ip, 40000), Endpoint("10.0.0.1", 80)) + b"GET"
        for ip in ("192.0.2.7", "2001:db8::7", "::ffff:192.0.2.7")
    ),
    SIGNATURE + b"\x21\x11\x00\x16" + bytes(12) + b"\x03\x00\x04abcd\x04\x00\x00",
    SIGNATURE + b"\x21\x31\x00\xd8" + bytes(216),
    own_header("v1"),
    own_header("v2"),
]
_CHAINS = [
    b"6.6.6.6, 192.0.2.7:1234, [2001:db8::7]:80, fd00::1, 10.0.0.3",
    b"unknown, _hidden, ::ffff:10.0.0.1, fe80::1%eth0",
    b'for=192.0.2.43, for="[2001:db8:cafe::17]:4711";proto=http;by=203.0.113.43;host="a.example:80"',
    b'for="_gaz\\"elle", for=unknown;;secret=x , For=1.2.3.4',
]
_TABLE = RoutingTable(
    epoch=3,
    name="edge-1",
    listeners=(ListenerView(1, 2, ListenerSettings("public", Address("127.0.0.1", 8080))),),
    routes=(RouteSettings("web", "a.example", "/b/"),),
    pools=(
        PoolView(
            name="web",
            cell=0,
            backends=(BackendView(BackendId("web", 1, 7), Address("127.0.0.1", 20000), 4),),
            newest=7,
            balance="hash",
            hash_key="header:A",
            timeouts=PoolTimeouts(),
            limits=PoolLimits(),
            drain=DrainSettings(),
            retry_attempts=2,
        ),
    ),
)
_MESSAGES = [
    encode(Publish(_TABLE, (1,))),
    *map(
        encode,
        [
            Applied(7),
            Drained("web.3@7", 9),
            Unreachable("web.1@1", "why"),
            Stats(1, 2, 3, {"upgrade": 4}),
            Welcome(1, 2, 3, "json"),
            Stop(2.5),
            LogFile("a"),
            AskStats(3),
        ],
    ),
    b'["Stop",NaN]',
    b'["Stop",1e999]',
    b'["Applied",true]',
    b'["Applied",' + b"9" * 40 + b"]",
    b"[" * 1990,
    b'["Stop",1' + b"0" * 400 + b"]",
    b'["Publish",[1,"a",[],[],[],"off","-"],[1]]',
    b'["Stats",1,2,3,{"a":"b"}]',
    b'[["Stop"],1]',
]


def _asked(method: str, target: str, values: object = None) -> bytes:
    body = b"" if values is None else json.dumps(values).encode()
    return f"{method} {target} HTTP/1.1\r\nHost: lbproxy\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


_QUESTIONS = [
    _asked("GET", "/v1/status"),
    _asked("GET", "/v1/logs?source=web.3&n=100&gen=7&follow=1"),
    _asked("POST", "/v1/reload", {"pools": ["web"], "config_only": True}),
    _asked("POST", "/v1/reload", {"pools": "web", "config_only": 1}),
    _asked("POST", "/v1/stop", {"now": False}),
    _asked("POST", "//[/", [1]),
    b"POST /v1/stop HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
]


def seeds(name: str) -> list[bytes]:
    """Each in one piece, and cut."""
    if name in ("link",):
        return _MESSAGES
    if name == "pump":
        return [bytes((number, 40, 15)) + raw[:120] for number in range(len(PARSERS)) for raw in _PUMPED]
    return [cut + raw for raw in _RAW[name] for cut in (_UNCUT, _CUT)]


_PUMPED = [
    *ACCEPTED_REQUESTS[:6],
    *ACCEPTED_RESPONSES[:3],
    *_CHUNKS[:3],
    *_FRAMES[:3],
    *_EVENTS[:2],
    *_MESSAGES[:4],
    b"GET / HTTP/1.1\r\nA: " + b" " * 60 + b"b\r\nHost: a\r\nContent-Length: 3, 3, 3, 3, 3, 3\r\n\r\n",
]
_RAW: dict[str, list[bytes]] = {
    "request_head": [*ACCEPTED_REQUESTS, *(case.raw for case in REFUSED_REQUESTS)],
    "response_head": [*ACCEPTED_RESPONSES, *(case.raw for case in REFUSED_RESPONSES)],
    "chunked_request": _CHUNKS,
    "chunked_response": _CHUNKS,
    "known_length": [bytes(range(100)), b"a" * 150, b"short"],
    "websocket": _FRAMES,
    "events": _EVENTS,
    "client_hello": SEEDS,
    "proxy_header": _HEADERS,
    "forwarded": _CHAINS,
    "control_api": _QUESTIONS,
    "http2_server": http2.SERVER,
    "http2_client": http2.CLIENT,
    "http2_blocks": http2.BLOCKS,
    "http2_request": http2.REQUESTS,
}

# What a fuzzer would take long to find by itself.
WORDS = [
    "\\x0d\\x0a", "\\x0d\\x0a\\x0d\\x0a", "HTTP/1.1", "HTTP/1.0", "Host:", "Content-Length:", "Transfer-Encoding:",
    "chunked", "Connection:", "close", "keep-alive", "Upgrade", "websocket", "Expect:", "100-continue", "TE:",
    "trailers", "X-Forwarded-For:", "X_Forwarded_For:", "Via:", "http://", "Content-Type: text/event-stream",
    "data: ", "\\x88\\x02\\x03\\xe8", "\\x81\\x7e", "\\x82\\xff", "[\\\"Applied\\\",", "[\\\"Stats\\\",", "null", "1e9",
    "{\\\"pools\\\":", "/v1/reload",
]  # fmt: skip
