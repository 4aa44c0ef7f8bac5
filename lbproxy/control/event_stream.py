"""`GET /v1/events`: the recent events and those that come, as server-sent events or as lines of JSON.

Reads the ring of events. Knows neither who asks nor what may be shown.
"""

import time
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import trio

from lbproxy.control.api_server import Answer, Declined, Question
from lbproxy.telemetry.event_ring import EventRing, Numbered
from lbproxy.telemetry.events import LogDropped
from lbproxy.telemetry.text import event_json, event_text
from lbproxy.telemetry.words import compact

USAGE = 2
MOST_STREAMS = 32
HEARTBEAT_S = 15.0  # a comment, so that a dead client is noticed and no proxy thinks the stream is
RECONNECT_MS = 2000
BATCH = 100
Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Wanted:
    """`after`: the id of the last event that the client has. `follow`: go on when the recent ones are told."""

    after: int
    follow: bool
    as_lines: bool


class EventStreams:
    """The streams of one door. They are few, so that other requests find room. `show` is applied to each event."""

    def __init__(self, ring: EventRing, show: Callable[[Values], Values] = lambda values: values) -> None:
        self.ring = ring
        self._show = show
        self._open = 0

    def answer(self, question: Question) -> Answer:
        """`Last-Event-ID` (or `after`), `since` (seconds), `n` (at most so many), `follow` (1), `format` (sse | lines).

        Without a beginning a stream begins now. Raises Declined.
        """
        wanted = _wanted(question, self.ring)
        if self._open >= MOST_STREAMS:
            raise Declined(503, f"{MOST_STREAMS} clients read the events already", fields=(("Retry-After", "5"),))
        media_type = "application/x-ndjson" if wanted.as_lines else "text/event-stream"
        self._open += 1
        return Answer(stream=(media_type, _pieces(self.ring, wanted, self._show)), on_end=self._end)

    def _end(self) -> None:
        self._open -= 1


def _wanted(question: Question, ring: EventRing) -> Wanted:
    query = question.query
    follow = query.get("follow", "1") not in ("", "0")
    last = question.fields.get("last-event-id") or query.get("after", "")
    since, count = query.get("since", ""), query.get("n", "")
    after = ring.newest_id
    if last:
        after = int(_number("Last-Event-ID", last))
        after = after if after <= ring.newest_id else ring.first_id - 1  # of another run, whose clock was ahead
    elif since:
        after = ring.since(time.time() - _number("since", since))
    elif count:
        after = ring.last(int(_number("n", count)))
    elif not follow:
        after = ring.oldest_id - 1
    if count:
        after = max(after, ring.last(int(_number("n", count))))
    if query.get("format", "sse") not in ("sse", "lines"):
        raise Declined(400, f"format: expected sse or lines, got {query['format'][:20]!r}", USAGE)
    return Wanted(after, follow, query.get("format") == "lines")


def _number(name: str, text: str) -> float:
    if not (text.isascii() and text.replace(".", "", 1).isdigit() and len(text) < 20):
        raise Declined(400, f"{name}: expected a number, got {text[:20]!r}", USAGE)
    return float(text)


async def _pieces(ring: EventRing, wanted: Wanted, show: Callable[[Values], Values]) -> AsyncGenerator[bytes, None]:
    after = wanted.after
    if not wanted.as_lines:
        yield b"retry: %d\n\n" % RECONNECT_MS
    while True:
        pieces = []
        if lost := ring.lost_after(after):
            pieces.append(_encoded(event_json(LogDropped(lost)), wanted))
        for numbered in ring.after(after, BATCH):
            pieces.append(_encoded(show(values_of(numbered)), wanted))
            after = numbered.id
        if pieces:
            yield b"".join(pieces)
        elif not wanted.follow or ring.has_ended:
            return
        else:
            with trio.move_on_after(HEARTBEAT_S) as patience:
                await ring.wait_newer(after)
            if patience.cancelled_caught:
                yield b"\n" if wanted.as_lines else b":\n\n"


def values_of(numbered: Numbered) -> dict[str, Any]:
    """The event as JSON, with its id, its level and the first line of its sentence."""
    event = numbered.event
    values = {"id": numbered.id, **event_json(event, numbered.at), "level": event.level}
    return {"text": event_text(event).partition("\n")[0], **values}


def _encoded(values: Values, wanted: Wanted) -> bytes:
    text = compact(values).encode()  # ASCII, one line
    if wanted.as_lines:
        return text + b"\n"
    id = b"id: %d\n" % values["id"] if "id" in values else b""
    return b"%bdata: %b\n\n" % (id, text)
