"""The head of a request on a stream, read for the express lane; and what a worker remembers of such heads.

Spelt as HTTP/1 it is read in the ways of wire/head_cache.py. Before them stands one more: the HPACK decoder gives the
same tuple of fields again for the same block, so a head that a connection repeats is known by identity.
"""

from typing import Any

from lbproxy.model import ListenerView
from lbproxy.wire.head import Lines, Refused, RequestHead, read_request
from lbproxy.wire.head_cache import CachedRequestHead, HeadCache
from lbproxy.wire.head_template import HeadTemplates, Parts, RequestTemplate, Values
from lbproxy.wire.headers import ClientFacts
from lbproxy.wire.http2.encoder import EncodedLines
from lbproxy.wire.http2.hpack import Fields
from lbproxy.worker.http2.answer_memory import AnswerMemory


class ReadHead:
    """The head of a request, as one connection has read it last: the same fields again mean the same."""

    __slots__ = (
        "before",
        "behind",
        "cached",
        "ends",
        "fields",
        "head",
        "is_call",
        "match",
        "raw",
        "scheme",
        "timeout_s",
        "view",
        "why",
    )

    def __init__(self, fields: Fields, view: ListenerView, raw: bytes, *, ends: bool) -> None:
        self.fields = fields
        self.view = view  # whose limits it has passed
        self.raw = raw
        self.ends = ends  # no body follows
        self.why = ""  # it is for a task
        self.head: RequestHead
        self.match: tuple[RequestTemplate, Values, int] | None = None
        self.cached: CachedRequestHead | None = None
        # Towards a backend that speaks HTTP/2.
        self.scheme = b""  # that of its block, `before` and `behind` the request id; b"": none was made
        self.before = self.behind = b""
        self.is_call: bool | None = None  # of gRPC; None: nobody has looked
        self.timeout_s = -1.0  # that the client gives the call; below 0: nobody has looked


class StreamHeads:
    """What a worker remembers of heads of HTTP/2, and the records that are free. One for all connections."""

    def __init__(self, encoded: EncodedLines) -> None:
        self.answers = AnswerMemory(encoded)  # of backends that speak HTTP/2
        self.lines = Lines()
        self.cache = HeadCache()
        self.templates = HeadTemplates(_template)
        self.free: list[Any] = []  # express.ExpressStream


def _template(one: Parts, two: Parts) -> RequestTemplate:
    template = RequestTemplate(one, two)
    template.sample.is_http2 = True
    return template


def read_again(read: ReadHead, heads: StreamHeads, facts: ClientFacts) -> None:
    """The same fields have come a second time: from now on the head is used from the head cache."""
    if read.match is not None:
        template, values, _ = read.match
        read.head = template.head(values)
        read.match = None
    read.cached = heads.cache.request(read.raw, read.head, facts)
    read.head, read.raw = read.cached.head, read.cached.raw


def read_head(read: ReadHead, heads: StreamHeads) -> None:
    """Read `raw`; `why` says what makes it a task's."""
    limits = read.view.settings.limits
    match = heads.templates.read(read.raw)
    if match is not None and match[0].field_lines <= limits.headers:
        read.match = match
        read.head = match[0].sample
        if match[0].length(match[1]) != read.head.length:
            read.head, read.match = match[0].head(match[1]), None
        return
    try:
        read.head = head = read_request(read.raw, heads.lines, limits.headers)
    except Refused:
        read.why = "refused"
        return
    head.is_http2 = True
    if head.expects_continue or head.upgrades:
        read.why = "upgrade" if head.upgrades else "expect"
        return
    heads.templates.learn(read.raw)
