"""Head templates: read and remake heads that differ in a few values, without looking at their lines one by one.

A client sends nearly the same in every request: the same fields in the same order, with another target, another trace
id, another cookie. A template is such a head with blanks where these values stand. It is learned from two heads. Of a
later head only the values are looked at, and the parts between them are compared as a whole.

What may be blank: the target, Content-Length, and values that have no bearing on how a message is read. A template
knows nothing else of HTTP. To make one, a head with a mark in each blank is given to head.py and headers.py, and the
marks are looked for in their results; where these are not found as expected, there is no template. So a template reads
a head as read_request and read_response do, and the bytes for the other side are the same (Hypothesis looks for a
difference in tests/wire/test_head_template_alike.py). head_cache.py says when a template is used.
"""

import sys
from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeAlias, TypeVar

from lbproxy.wire.head import RESPONSE_HEAD_BYTES, RequestHead, ResponseHead, read_request, read_response
from lbproxy.wire.headers import ClientFacts, Framing, is_dated, request_to_backend, response_to_client
from lbproxy.wire.lines import IN_VALUE, REQUEST_KINDS, RESPONSE_KINDS, Kind, Lines, Refused
from lbproxy.wire.startline import IN_TARGET

MOST_BLANKS = 12  # with more of them, looking at every line costs no more
LONGEST_BYTES = 8192  # of a head that is learned from
KEPT_TEMPLATES = 8  # tried one after the other: each that does not fit costs about 0.15 us
KEPT_HEADS = 16  # waiting for another one like them, by their number of lines
# To make a template costs as much as to read some ten heads, and it is often in vain. So it is paid for with heads that
# are not learned from; the first few templates are made on credit.
REST = 16
MOST_REST = KEPT_TEMPLATES * REST
ANY_BYTES = sys.maxsize  # how long a request's head may be is its listener's to say
_SLASH = ord("/")

Parts: TypeAlias = list[bytes]  # the lines of a head, and the two empty strings at its end
# What stands in the blanks: first what is passed on, in order, then the length if that is blank, then what is not
# passed on.
Values: TypeAlias = list[bytes]

# Numbers, so that they may stand for a length as well. A head in which one of them stands already gets no template.
_MARKS = tuple(b"%d" % (7_130_274_519_206_487_300 + number) for number in range(MOST_BLANKS + 1))
_ID = b"\0id\0"
_STRANGER = ClientFacts(b"\0ip\0", False, b"http")

# Fields that lbproxy itself reads and that may be blank all the same: they change nothing but what they say.
_NOTED = frozenset((b"accept", b"user-agent", b"referer"))
_ASIDE = frozenset((b"x-request-id", b"x-real-ip", b"forwarded"))


class NoTemplate(Exception):
    """Two heads that are not alike, or differ in what matters."""


class Blanks:
    """The values in which two heads differ."""

    def __init__(self, one: Parts, two: Parts, kinds: dict[bytes, Kind]) -> None:
        """Raises NoTemplate."""
        self.lines = list(two)  # with a mark in each blank
        self.marks: list[bytes] = []  # of all, in the order of the lines
        self.passed: list[tuple[bytes, bytes]] = []  # name as spelt, mark
        self.aside: list[tuple[bytes, bytes]] = []
        self.lengths: list[tuple[bytes, bytes]] = []  # at most one
        for number, (before, line) in enumerate(zip(one, two, strict=True)):
            if number and before != line:
                name = line.partition(b":")[0]
                known = name + b": "
                if not line.startswith(known) or not before.startswith(known) or len(self.marks) == MOST_BLANKS:
                    raise NoTemplate
                mark = _MARKS[len(self.marks) + 1]
                self.lines[number] = known + mark
                self.marks.append(mark)
                self._sort(name.lower(), kinds).append((name, mark))
        if len(self.lengths) > 1:
            raise NoTemplate

    def _sort(self, name: bytes, kinds: dict[bytes, Kind]) -> list[tuple[bytes, bytes]]:
        kind = kinds.get(name)
        if kind is Kind.LENGTH:
            return self.lengths
        if kind is Kind.ASIDE and name in _ASIDE:
            return self.aside
        if kinds is REQUEST_KINDS and name.startswith(b"x-forwarded-"):  # of an answer they are passed on
            return self.aside
        if kind is None or name in _NOTED:
            return self.passed
        raise NoTemplate


class Outline:
    """The fixed parts of a head, and the blanks between them.

    A class by itself, not a base of the templates: the interpreter looks attributes up faster where all `self` are of
    one class.
    """

    __slots__ = ("_begin", "_behind_begin", "_blocks", "_has_target", "_most_bytes", "_order", "has_length", "passed")

    def __init__(self, marked: bytes, blanks: Blanks, most_bytes: int, target: bytes | None = None) -> None:
        """`target`: the mark of one; it stands before those of `blanks`, and is passed on."""
        more = () if target is None else (target,)
        marks = [*more, *blanks.marks]
        self._most_bytes = most_bytes
        self._has_target = target is not None
        self._begin, *blocks = _between(marked, marks)
        self._behind_begin = len(self._begin)
        self._blocks = [(block[:1], block, len(block)) for block in blocks]
        self.passed = len(more) + len(blanks.passed)
        self.has_length = bool(blanks.lengths)
        ordered = [*more, *(mark for _, mark in (*blanks.passed, *blanks.lengths, *blanks.aside))]
        # None if they are ordered as they stand.
        self._order = None if ordered == marks and not blanks.lengths else [marks.index(mark) for mark in ordered]

    def read(self, data: bytes) -> tuple[Values, int] | None:
        """The values in the blanks of the head at the start of `data`, and where it ends; None if it does not fit."""
        # Hot. A value ends where the fixed part behind it begins: a target at the next blank, any other value at the
        # next CR. What has one of these inside is not read over: the fixed part does not fit there.
        if not data.startswith(self._begin):
            return None
        at = self._behind_begin
        find = data.find
        values: Values = []
        for stop, block, length in self._blocks:
            end = find(stop, at)
            value = data[at:end]
            if not data.startswith(block, end) or not value or value.strip(b" \t") != value:
                return None
            values.append(value)
            at = end + length
        joined = b"".join(values)
        if joined.translate(IN_VALUE) != joined:
            return None
        if self._order is not None:
            values = [values[number] for number in self._order]
            if self.has_length:
                told = values[self.passed]
                if not told.isdigit() or len(told) > 19:
                    return None
                values[self.passed] = b"%d" % int(told)
        if self._has_target:
            target = values[0]
            if target[0] != _SLASH or target.translate(IN_TARGET) != target:
                return None
        return (values, at) if at <= self._most_bytes else None


class RequestTemplate:
    """A request head with blanks: `head` and `to_backend` are made of the values that `outline` finds in another head.

    `sample` is a head of this template. All of them are alike but for the target, the length, `lines` and `fields`.
    """

    __slots__ = (
        "_fields",
        "_has_length",
        "_lines",
        "_passed",
        "_template",
        "field_lines",
        "logs_alike",
        "outline",
        "sample",
    )

    def __init__(self, one: Parts, two: Parts) -> None:
        """Raises NoTemplate, or Refused."""
        method, _, _ = two[0].partition(b" ")
        for start in (one[0], two[0]):
            if not start.startswith(method + b" /") or not start.endswith(b" HTTP/1.1"):
                raise NoTemplate
        blanks = Blanks(one, two, REQUEST_KINDS)
        target = b"/" + _MARKS[0]
        marked = b"\r\n".join((b"%b %b HTTP/1.1" % (method, target), *blanks.lines[1:]))
        self.field_lines = len(two) - 3
        self.outline = Outline(marked.replace(target, _MARKS[0], 1), blanks, ANY_BYTES, _MARKS[0])
        self._passed = self.outline.passed
        self._has_length = self.outline.has_length
        self.sample = head = read_request(marked, Lines(), self.field_lines)
        if head.target != target or head.chunked or head.expects_continue or head.upgrades:
            raise NoTemplate
        marks = [target, *_marks(blanks.passed), _STRANGER.forwarded, _ID, *_marks(blanks.lengths)]
        self._template = _template(request_to_backend(head, _STRANGER, _ID), marks)
        # Where the values go in a RequestHead: (line, name, which of the values); (name, which of the values).
        self._lines = [
            (head.lines.index(name + b": " + mark), name + b": ", number)
            for number, (name, mark) in enumerate(blanks.passed, 1)
        ]
        noted = [*blanks.passed, *blanks.lengths, *blanks.aside]
        self._fields = [
            (name.lower(), number) for number, (name, _) in enumerate(noted, 1) if name.lower() in head.fields
        ]
        if any(len(head.fields[name]) != 1 for name, _ in self._fields):
            raise NoTemplate
        self.logs_alike = not self._fields  # `sample` has every request's `fields`

    def length(self, values: Values) -> int | None:
        return int(values[self._passed]) if self._has_length else self.sample.length

    def head(self, values: Values) -> RequestHead:
        """The head that read_request makes."""
        like = self.sample
        lines, fields = like.lines.copy(), like.fields
        for at, name, number in self._lines:
            lines[at] = name + values[number]
        if self._fields:
            fields = fields.copy()
            for name, number in self._fields:
                fields[name] = [values[number]]
        length = self.length(values)
        head = RequestHead(like.method, values[0], like.host, 1, like.keep_alive, length, False, lines, fields)
        if like.wants_trailers:
            head.wants_trailers = True
        if like.is_http2:
            head.is_http2 = True
        return head

    def to_backend(self, values: Values, client: ClientFacts, request_id: bytes) -> bytes:
        """The head that request_to_backend makes for a client that is not trusted."""
        passed = self._passed
        if passed == len(values):
            return self._template % (*values, client.forwarded, request_id)
        length = values[passed : passed + self._has_length]
        return self._template % (*values[:passed], client.forwarded, request_id, *length)


class ResponseTemplate:
    """A response head with blanks: a response that `outline` reads says the same as `sample`, but for its length."""

    __slots__ = ("_passed", "_templates", "blanks", "has_length", "http2", "is_dated", "outline", "sample")

    def __init__(self, one: Parts, two: Parts) -> None:
        """Raises NoTemplate, or Refused."""
        if one[0] != two[0]:
            raise NoTemplate
        self.blanks = blanks = Blanks(one, two, RESPONSE_KINDS)
        marked = b"\r\n".join(blanks.lines)
        self.outline = Outline(marked, blanks, RESPONSE_HEAD_BYTES)
        self._passed = self.outline.passed
        self.has_length = self.outline.has_length
        self.sample: ResponseHead = read_response(marked, Lines())
        self.is_dated = is_dated(self.sample)
        self.http2: object = None  # what an answer of HTTP/2 is made with (http2/answer_template.py)
        self._templates: dict[tuple[Framing, bool, int], tuple[bytes, int]] = {}
        if self.sample.status < 200 or (self.sample.status == 204 and blanks.lengths):
            raise NoTemplate  # whether its connection is used again depends on its length
        _between(b"\r\n".join(self.sample.lines), _marks(blanks.passed))

    def length(self, values: Values) -> int | None:
        return int(values[self._passed]) if self.has_length else self.sample.length

    def to_client(self, values: Values, request: RequestHead, own: bytes, framing: Framing, keep: bool) -> bytes:
        """The head that response_to_client makes."""
        passed = self._passed
        template, lengths = self._templates.get((framing, keep, request.minor)) or self._make(request, framing, keep)
        if passed == len(values):
            return template % (*values, own)
        return template % (*values[:passed], own, *values[passed : passed + lengths])

    def _make(self, request: RequestHead, framing: Framing, keep: bool) -> tuple[bytes, int]:
        """A template, and how many lengths it takes: not every framing tells one."""
        made = response_to_client(self.sample, request, _ID, framing, keep)
        lengths = [mark for mark in _marks(self.blanks.lengths) if mark in made]
        template = _template(made, [*_marks(self.blanks.passed), _ID, *lengths])
        self._templates[framing, keep, request.minor] = template, len(lengths)
        return template, len(lengths)


class Outlined(Protocol):
    outline: Outline


Template = TypeVar("Template", bound=Outlined)


class HeadTemplates(Generic[Template]):
    """The templates of one kind of head that are in use, and heads that wait for one like them. Bounded."""

    def __init__(self, make: Callable[[Parts, Parts], Template]) -> None:
        self._make = make
        self._templates: list[tuple[Outline, Template]] = []
        self._waiting: dict[int, bytes] = {}
        self._rest = 0  # heads

    def read(self, data: bytes) -> tuple[Template, Values, int] | None:
        """The first template that fits the head which `data` begins with, what it reads, and where the head ends."""
        for pair in self._templates:
            outline, template = pair
            found = outline.read(data)
            if found is not None:
                if pair is not self._templates[0]:
                    self._templates.remove(pair)
                    self._templates.insert(0, pair)
                values, end = found
                return template, values, end
        return None

    def learn(self, raw: bytes) -> None:
        """Learn from a head that was found good and that no template fits."""
        if self._rest:
            self._rest -= 1
        if self._rest > MOST_REST or len(raw) > LONGEST_BYTES:
            return
        parts = raw.split(b"\r\n")
        before = self._waiting.pop(len(parts), None)
        if before is not None:
            self._rest += REST
            try:
                template = self._make(before.split(b"\r\n"), parts)
            except (NoTemplate, Refused):
                pass
            else:
                self._templates.insert(0, (template.outline, template))
                del self._templates[KEPT_TEMPLATES:]
                return
        if len(self._waiting) >= KEPT_HEADS:
            self._waiting.clear()
        self._waiting[len(parts)] = raw


def _marks(blanks: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    return [mark for _, mark in blanks]


def _between(text: bytes, marks: Iterable[bytes]) -> list[bytes]:
    """The parts before, between and behind the marks. Raises NoTemplate unless each stands there once, in order."""
    pieces = []
    rest = text
    for mark in marks:
        piece, found, rest = rest.partition(mark)
        if not found or text.count(mark) != 1:
            raise NoTemplate
        pieces.append(piece)
    return [*pieces, rest]


def _template(made: bytes, marks: Iterable[bytes]) -> bytes:
    return b"%b".join(piece.replace(b"%", b"%%") for piece in _between(made, marks))
