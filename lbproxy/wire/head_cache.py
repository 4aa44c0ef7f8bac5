"""The ways in which a head is read; and heads that repeat, remembered whole with the bytes that are made of them.

The express lane (worker/express) reads a head in the first of these ways that fits; each later one costs more:

1. The same bytes as the last head on this connection: nothing is read. `GET / HTTP/1.1|Host: a|Accept: */*` a second
   time: one comparison of bytes. From the second time on the head is looked up in the HeadCache, which holds what goes
   to the other side: `GET / ...|Host: a|Accept: */*|` + the lines of the client's connection (X-Forwarded-For) +
   `X-Forwarded-Host: a|X-Request-ID: ` + an id of this request + `|Via: ...`. One join of five pieces.
2. Like an earlier head but for a few values: read by a template (head_template.py). `GET /items/7 ...|Cookie: sid=f3`
   after `GET /items/6 ...|Cookie: sid=a1`: the parts between the values are compared as a whole, only `/items/7` and
   `sid=f3` meet the grammar. Learned from two heads with the same lines in the same order.
3. New, but of lines that were seen before: each line is looked up in a bounded memory of lines (lines.py).
   `User-Agent: curl/8` means the same in every head. One dictionary look-up for each line.
4. A line that was never seen meets the grammar (lines.py, startline.py), and is remembered.

A head that ways 2 to 4 do not accept is refused or is the task lane's, which reads by 3 and 4. All four give the same
values and the same bytes for the other side: tests/wire/test_head_template_alike.py and tests/worker/test_same_bytes.py
look for a difference.

This module is way 1. A connection compares what it receives with what it received last; only when that repeats is it
looked up here, so that heads which never repeat cost nothing. That connections share the remembered objects matters as
much as not making them: thousands of copies would not stay in the processor's caches. What the client's address decides
is not part of an entry: 2,000 clients with an address each share one entry. Bounded; a full cache is dropped whole, and
a connection that holds an entry keeps it.
"""

from typing import TypeAlias

from lbproxy.wire.head import Lines, RequestHead, ResponseHead, read_response
from lbproxy.wire.headers import (
    ClientFacts,
    Framing,
    framing_for_client,
    is_dated,
    request_to_backend,
    response_to_client,
)

CACHED_HEADS = 512  # of each kind; the largest possible head is 16 or 64 KiB, a usual one 300 bytes
LONGEST_BYTES = 4096
MARK = b"\0"  # stands for the request id while a head is made: no head can contain it
USUAL = RequestHead(b"GET", b"/", b"", 1, True, None, False, [], {})


_NO_CONNECTION = ClientFacts(b"", False, b"\0\0")  # its lines are found again in a head that is made


class CachedRequestHead:
    """A request head with the bytes for the backend: `before`, the connection's lines, `between`, the id, `behind`.

    Where the lines of a connection vary with its requests (ClientFacts.varies), all of them stand in `before`.
    """

    __slots__ = ("before", "behind", "between", "head", "raw")

    def __init__(self, raw: bytes, head: RequestHead, facts: ClientFacts) -> None:
        self.raw = raw
        self.head = head
        made = request_to_backend(head, facts if facts.varies else _NO_CONNECTION, MARK)
        self.before, self.behind = _split(made, b"X-Request-ID: " + MARK)
        self.before += b"X-Request-ID: "
        self.between = b""
        if not facts.varies:
            self.before, self.between = _split(self.before, _NO_CONNECTION.forwarded)


ReadReply: TypeAlias = tuple[ResponseHead, int, int | None]  # a head, where it ends, and the length of the body


class CachedResponseHead:
    __slots__ = ("_made", "block", "is_dated", "raw", "read", "size", "usual")

    def __init__(self, raw: bytes, head: ResponseHead) -> None:
        self.raw = raw
        self.is_dated = is_dated(head)
        self.read: ReadReply = (head, len(raw), head.length)
        self._made: dict[tuple[Framing, bool, int], tuple[bytes, bytes]] = {}
        self.block = b""  # the same for a client of HTTP/2, once one has asked; the request id goes behind it
        # Of the whole answer, with its body; 0: it has none, or how long it is is not all that matters.
        self.size = 0
        # As for_client, where the size is known: for a GET in HTTP/1.1 of a client that stays.
        self.usual: tuple[bytes, bytes] = (b"", b"")
        sized = framing_for_client(head, USUAL) is Framing.LENGTH and head.keep_alive and not head.event_stream
        if sized and head.length is not None and self.is_dated:
            self.size = len(raw) + head.length
            self.usual = self.for_client(USUAL, Framing.LENGTH, True)

    def for_client(self, request: RequestHead, framing: Framing, keep: bool) -> tuple[bytes, bytes]:
        """The bytes for the client, before and behind the request id. A HEAD or 1.0 request changes the framing."""
        template = (framing, keep, request.minor)
        made = self._made.get(template)
        if made is None:
            made = self._made[template] = _split(response_to_client(self.read[0], request, MARK, framing, keep))
        return made


class HeadCache:
    def __init__(self) -> None:
        self._requests: dict[bytes | tuple[bytes, ClientFacts], CachedRequestHead] = {}
        self._replies: dict[bytes, CachedResponseHead] = {}

    def request(self, raw: bytes, head: RequestHead, facts: ClientFacts) -> CachedRequestHead:
        key = (raw, facts) if facts.varies else raw
        known = self._requests.get(key)
        if known is None:
            known = CachedRequestHead(raw, head, facts)
            if len(raw) <= LONGEST_BYTES:
                if len(self._requests) >= CACHED_HEADS:
                    self._requests.clear()
                self._requests[key] = known
        return known

    def reply(self, raw: bytes, lines: Lines) -> CachedResponseHead:
        """`raw` is a head that was read before and found good."""
        known = self._replies.get(raw)
        if known is None:
            known = CachedResponseHead(raw, read_response(raw, lines))
            if len(raw) <= LONGEST_BYTES:
                if len(self._replies) >= CACHED_HEADS:
                    self._replies.clear()
                self._replies[raw] = known
        return known


def _split(head: bytes, mark: bytes = MARK) -> tuple[bytes, bytes]:
    before, _, behind = head.partition(mark)
    return before, behind
