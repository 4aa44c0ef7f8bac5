"""Follow a text/event-stream body and know where its events end (HTML standard, 9.2.5).

An event ends with a blank line; a line ends with CRLF, LF or CR, in any mixture. Knows the body's bytes behind the
transfer coding. Knows nothing of fields, chunks, sockets or time.
"""

_BOM = b"\xef\xbb\xbf"
_LF = 0x0A


class EventTracker:
    """Where may the body end, so that every event that was begun is told as a whole?

    The owner either feeds a whole piece and lets it pass, or asks last_boundary(), lets only so much pass, and ends
    the body. Costs three searches of the piece, in C; three bytes are remembered.
    """

    __slots__ = ("_bom", "_tail", "at_boundary")

    def __init__(self) -> None:
        self.at_boundary = True  # also before the first byte
        self._tail = b"\n\n\n"  # the last three bytes; before the first one we are behind a blank line, as it were
        self._bom = 0  # how many of its bytes have come; all three: this is settled, and what comes is text

    def feed(self, data: bytes) -> None:
        """All of `data` passes."""
        last, self._tail, self._bom = self._look(data)
        self.at_boundary = last == len(data)

    def last_boundary(self, data: bytes) -> int:
        """The offset in `data`, which is not fed by this, behind the last whole event; -1: there is none.

        0: it stands at a boundary already, and no event ends within `data`.
        """
        return self._look(data)[0]

    def _look(self, data: bytes) -> tuple[int, bytes, int]:
        """The last boundary in `data`, and what `_tail` and `_bom` would be behind it."""
        bom, tail, skipped = self._bom, self._tail, 0
        if bom < len(_BOM):
            expected = _BOM[bom : bom + len(data)]
            if data.startswith(expected):
                skipped = len(expected)
                bom += skipped
                if bom < len(_BOM):
                    return (0 if self._bom == 0 else -1), tail, bom
            else:
                tail = (tail + _BOM[:bom])[-3:]
                bom = len(_BOM)
        text = tail + data[skipped:]
        last = _last_blank_line(text) - len(tail)
        return (skipped + last if last >= 0 else -1), text[-3:], bom


def _last_blank_line(text: bytes) -> int:
    """The offset behind the last blank line of `text`, -1 without any."""
    # Two line ends in a row make a blank line, and CR LF is one line end: whatever the mixture, the last byte of the
    # first and the first byte of the second are LF LF, LF CR or CR CR.
    first = max(text.rfind(b"\n\n"), text.rfind(b"\n\r"), text.rfind(b"\r\r"))
    if first < 0:
        return -1
    behind = first + 2
    if text[first + 1] == _LF:
        return behind
    if behind < len(text):
        return behind + 1 if text[behind] == _LF else behind
    # The text ends with a CR that may be half of a CRLF. If the line before ended with CR alone, it is not.
    return behind if text[first] != _LF else _last_blank_line(text[:-1])
