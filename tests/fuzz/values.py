"""What processes say to each other under any bytes: link messages, and requests to the control API."""

from collections.abc import Coroutine
from typing import Any

from fuzz.heads import pieces_of
from lbproxy.control.api import flag, pool_names
from lbproxy.control.api_server import Declined, Question, read_question
from lbproxy.link.codec import LinkBroken, decode, encode
from lbproxy.link.messages import ToControl, ToWorker
from lbproxy.wire.lines import Refused


def link(data: bytes) -> None:
    for union in (ToControl, ToWorker):
        try:
            message = decode(data, union)
        except LinkBroken:
            continue
        assert isinstance(message, union)
        assert decode(encode(message), union) == message


class Scripted:
    """A stream that never waits."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = [piece for piece in pieces if piece]

    async def receive_some(self, most: int | None = None) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""


def control_api(data: bytes) -> None:
    pieces, raw = pieces_of(data)
    whole = _asked([raw])
    assert _asked(pieces) == whole, "another cut, another reading"
    if isinstance(whole, Question):
        for ask in (pool_names, lambda values: flag(values, "now")):
            try:
                ask(whole.values)
            except Declined as declined:
                assert declined.answer.status == 400  # noqa: PT017


def _asked(pieces: list[bytes]) -> Question | str | None:
    try:
        return _run(read_question(Scripted(pieces)))  # type: ignore[arg-type]
    except Refused:
        return "refused"
    except Declined as declined:
        assert declined.answer.status in (400, 413)  # noqa: PT017
        return "refused"


def _run(asking: Coroutine[Any, Any, Question | None]) -> Question | None:
    try:
        asking.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waits for something other than the stream")
