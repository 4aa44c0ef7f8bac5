"""Heads that repeat, remembered whole, with the bytes that are made of them; shared by all connections of a worker.

Clients and backends say mostly what they have said before. A connection compares what it reads with what it read last;
only when that repeats is it looked up here, so that heads which never repeat cost nothing. That connections share the
remembered objects matters as much as not making them: thousands of copies would not stay in the processor's caches.
Bounded; a full memory is dropped whole, and who still holds an entry keeps it.
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

REMEMBERED = 512  # of each kind; the largest possible head is 16 or 64 KiB, a usual one 300 bytes
LONGEST_BYTES = 4096
MARK = b"\0"  # stands for the request id while a head is made: no head can contain it
USUAL = RequestHead(b"GET", b"/", b"", 1, True, None, False, [], {})


class RepeatedRequest:
    __slots__ = ("before", "behind", "facts", "head", "raw")

    def __init__(self, raw: bytes, head: RequestHead, facts: ClientFacts) -> None:
        self.raw = raw
        self.head = head
        self.facts = facts
        # What goes to the backend, before and behind the request id.
        self.before, self.behind = _split(request_to_backend(head, facts, MARK))


ReadReply: TypeAlias = tuple[ResponseHead, int, int | None]  # a head, where it ends, and the length of the body


class RepeatedReply:
    __slots__ = ("_made", "is_dated", "raw", "read", "size", "usual")

    def __init__(self, raw: bytes, head: ResponseHead) -> None:
        self.raw = raw
        self.is_dated = is_dated(head)
        self.read: ReadReply = (head, len(raw), head.length)
        self._made: dict[tuple[Framing, bool, int], tuple[bytes, bytes]] = {}
        # Of the whole answer, with its body; 0: it has none, or how long it is is not all that matters.
        self.size = 0
        # As for_client, where the size is known: for a GET in HTTP/1.1 of a client that stays.
        self.usual: tuple[bytes, bytes] = (b"", b"")
        sized = framing_for_client(head, USUAL) is Framing.LENGTH and head.keep_alive and not head.event_stream
        if sized and head.length is not None and self.is_dated:
            self.size = len(raw) + head.length
            self.usual = self.for_client(USUAL, Framing.LENGTH, True)

    def for_client(self, request: RequestHead, framing: Framing, keep: bool) -> tuple[bytes, bytes]:
        """What goes to the client, before and behind the request id. A HEAD or 1.0 request changes the framing."""
        shape = (framing, keep, request.minor)
        made = self._made.get(shape)
        if made is None:
            made = self._made[shape] = _split(response_to_client(self.read[0], request, MARK, framing, keep))
        return made


class Repeats:
    def __init__(self) -> None:
        self._requests: dict[bytes, RepeatedRequest] = {}
        self._replies: dict[bytes, RepeatedReply] = {}

    def request(self, raw: bytes, head: RequestHead, facts: ClientFacts) -> RepeatedRequest:
        known = self._requests.get(raw)
        if known is None or known.facts is not facts:
            known = RepeatedRequest(raw, head, facts)
            if len(raw) <= LONGEST_BYTES:
                if len(self._requests) >= REMEMBERED:
                    self._requests.clear()
                self._requests[raw] = known
        return known

    def reply(self, raw: bytes, lines: Lines) -> RepeatedReply:
        """`raw` is a head that was read before and found good."""
        known = self._replies.get(raw)
        if known is None:
            known = RepeatedReply(raw, read_response(raw, lines))
            if len(raw) <= LONGEST_BYTES:
                if len(self._replies) >= REMEMBERED:
                    self._replies.clear()
                self._replies[raw] = known
        return known


def _split(head: bytes) -> tuple[bytes, bytes]:
    before, _, behind = head.partition(MARK)
    return before, behind
