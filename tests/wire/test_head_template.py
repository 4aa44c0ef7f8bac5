"""HeadTemplates: whatever they read, they read as head.py does, and make the bytes that headers.py makes."""

from collections.abc import Callable, Sequence
from itertools import product

import pytest
from support.each import each
from support.http_corpus import ACCEPTED_REQUESTS, ACCEPTED_RESPONSES, REFUSED_REQUESTS, REFUSED_RESPONSES, response
from support.proxy import get

from lbproxy.wire.head import RESPONSE_HEAD_BYTES, ResponseHead, read_request, read_response
from lbproxy.wire.head_template import (
    KEPT_HEADS,
    KEPT_TEMPLATES,
    LONGEST_BYTES,
    MOST_BLANKS,
    MOST_REST,
    REST,
    HeadTemplates,
    Parts,
    RequestTemplate,
    ResponseTemplate,
)
from lbproxy.wire.headers import ClientFacts, Framing, request_to_backend, response_to_client
from lbproxy.wire.lines import Lines

STRANGER = ClientFacts(b"192.0.2.1", False, b"http")
FRIEND = ClientFacts(b"2001:db8::2", True, b"https")
ID = b"0123456789abcdef"
ASKED = [read_request(get(b"/", method=how, minor=minor), Lines(), 9) for how in (b"GET", b"HEAD") for minor in (0, 1)]
MARK = b"7130274519206487301"

Made = Callable[[bytes], bytes]  # a head with this value in it


def requests(*heads: bytes) -> HeadTemplates[RequestTemplate]:
    templates = HeadTemplates(RequestTemplate)
    for raw in heads:
        read_request(raw, Lines(), 200)  # only good heads are learned from
        templates.learn(raw)
    return templates


def replies(*heads: bytes) -> HeadTemplates[ResponseTemplate]:
    templates = HeadTemplates(ResponseTemplate)
    for raw in heads:
        read_response(raw, Lines())
        templates.learn(raw)
    return templates


def is_read(templates: HeadTemplates[RequestTemplate], text: bytes) -> bool:
    """And if it is, everything that the template says of it is true."""
    found = templates.read(text)
    if found is None:
        return False
    template, values, end = found
    head = read_request(text[:end], Lines(), template.field_lines)
    match = template.head(values)
    assert match == head
    assert template.to_backend(values, STRANGER, ID) == request_to_backend(head, STRANGER, ID)
    assert request_to_backend(match, FRIEND, ID) == request_to_backend(head, FRIEND, ID)
    return True


def is_read_back(templates: HeadTemplates[ResponseTemplate], text: bytes) -> bool:
    found = templates.read(text)
    if found is None:
        return False
    template, values, end = found
    head = read_response(text[:end], Lines())
    assert without_what_varies(template.sample) == without_what_varies(head)
    assert template.length(values) == head.length
    for asked, framing, keep in product(ASKED, Framing, (True, False)):
        made = template.to_client(values, asked, ID, framing, keep)
        assert made == response_to_client(head, asked, ID, framing, keep)
    return True


def without_what_varies(head: ResponseHead) -> Sequence[object]:
    return head.status, head.reason, head.minor, head.keep_alive, head.chunked, head.upgrade, head.event_stream


def field(name: bytes, *more: bytes, method: bytes = b"POST") -> Made:
    return lambda value: get(b"/" + value.strip().replace(b" ", b"+"), name + b": " + value, *more, method=method)


def reply_field(name: bytes, *more: bytes) -> Made:
    return lambda value: response(name + b": " + value, *more)


# What is read


def test_a_request_like_two_others_is_read_up_to_its_end() -> None:
    templates = requests(*(get(b"/%d" % number, b"A: 50%", b"Cookie: a=%d" % number) for number in (1, 2)))
    raw = get(b"/three", b"A: 50%", b"Cookie: %s")
    for behind in (b"", b"more", b"\r\n", raw, b"\x00"):
        found = templates.read(raw + behind)
        assert found is not None
        assert found[2] == len(raw)
        assert found[0].field_lines == 3
        assert is_read(templates, raw + behind)


def test_an_answer_like_two_others_is_read_up_to_its_end() -> None:
    made = [response(b"Content-Length: %d" % n, b"X-Request-ID: %d" % n, b"ETag: %d" % n) for n in range(3)]
    templates = replies(*made[:2])
    for behind in (b"", b"more", b"\r\n", made[1]):
        found = templates.read(made[2] + behind)
        assert found is not None
        assert found[2] == len(made[2])
        assert is_read_back(templates, made[2] + behind)


PASSED = [b"Cookie", b"cookie", b"User_Id", b"Accept", b"User-Agent", b"referer"]
ASIDE = [b"X-Forwarded-For", b"x-forwarded-port", b"X-Forwarded-A_B", b"X-Real-IP", b"Forwarded", b"X-Request-Id"]


@each([*PASSED, *ASIDE], [b"c", b"50%", b"%b %s %", b"a \t b", b"\xe4\xff", b"a: b", b",", MARK, b"c" * 5000])
def test_a_value_without_a_bearing_on_the_message_may_be_any(name: bytes, value: bytes) -> None:
    made = field(name)
    assert is_read(requests(made(b"a"), made(b"b")), get(b"/", name + b": " + value, method=b"POST"))


@each(
    [*PASSED, b"X-Forwarded-For", b"X-Real-IP", b"Forwarded", b"X_Forwarded_For", b"X-Request-ID", b"ETag"],
    [b"c", b"50%", b"a \t b", b"\xe4\xff", b"a: b", MARK],
)
def test_a_value_of_an_answer_may_be_any(name: bytes, value: bytes) -> None:
    made = reply_field(name, b"Content-Length: 3")
    assert is_read_back(replies(made(b"a"), made(b"b")), made(value))


@pytest.mark.parametrize("value", [b"", b" ", b"\t", b" c", b"c ", b"\tc", b"c\t"])
def test_a_value_that_is_empty_or_has_blanks_around_it_is_left_to_others(value: bytes) -> None:
    assert not is_read(requests(field(b"A")(b"a"), field(b"A")(b"b")), get(b"/", b"A: " + value, method=b"POST"))
    assert not is_read_back(replies(reply_field(b"A")(b"a"), reply_field(b"A")(b"b")), reply_field(b"A")(value))


@pytest.mark.parametrize(("told", "length"), [(b"0", 0), (b"3", 3), (b"033", 33), (b"9" * 19, int("9" * 19))])
def test_a_length_may_be_any_plain_number(told: bytes, length: int) -> None:
    templates = requests(field(b"Content-Length")(b"1"), field(b"Content-Length")(b"2, 2"))
    assert is_read(templates, field(b"Content-Length")(told))
    found = replies(reply_field(b"content-length")(b"1"), reply_field(b"content-length")(b"2")).read(
        reply_field(b"content-length")(told)
    )
    assert found is not None
    assert found[0].length(found[1]) == length


@pytest.mark.parametrize("told", [b"3, 3", b"+3", b"-3", b"0x3", b"3a", b"3, 4", b"1" * 20, b"\xb2", b"3_0"])
def test_a_length_of_another_kind_is_left_to_others(told: bytes) -> None:
    assert not is_read(requests(*map(field(b"Content-Length"), (b"1", b"2"))), field(b"Content-Length")(told))
    templates = replies(*map(reply_field(b"Content-Length"), (b"1", b"2")))
    assert not is_read_back(templates, reply_field(b"Content-Length")(told))


@pytest.mark.parametrize(
    "target", [b"*", b"http://b/c", b"c", b"", b"/#", b"/\xe4", b"/a b", b"/\t", b"/\x00", b"/\r", b"/\n", b"?c"]
)
def test_a_target_of_another_form_is_left_to_others(target: bytes) -> None:
    templates = requests(get(b"/a", b"A: b"), get(b"/b", b"A: b"))
    assert is_read(templates, get(b"/c?d=%7130274519206487300", b"A: b"))
    assert not is_read(templates, get(target, b"A: b"))


@pytest.mark.parametrize("minor", [0, 2, 9])
def test_another_version_has_no_template(minor: int) -> None:
    templates = requests(get(b"/a", minor=minor), get(b"/b", minor=minor))
    assert not templates._templates
    assert not is_read(requests(get(b"/a"), get(b"/b")), get(b"/c", minor=minor))


@pytest.mark.parametrize("start", [b"HTTP/1.0 200 OK", b"HTTP/1.1 204", b"HTTP/1.1 304 50%", b"HTTP/1.1 500 "])
def test_an_answer_of_any_status_is_made_as_others_make_it(start: bytes) -> None:
    more = [b"Connection: keep-alive", b"Via: 1.0 a"]
    for name in (b"Content-Length", b"ETag"):
        heads = [response(b"%b: %d" % (name, number), *more, start=start) for number in range(3)]
        # Whether the connection behind a 204 is used again depends on the length that it announces.
        has_template = (name, start[9:12]) != (b"Content-Length", b"204")
        assert is_read_back(replies(*heads[:2]), heads[2]) == has_template


def test_what_stays_the_same_may_be_what_decides() -> None:
    for more in ([b"TE: trailers"], [b"Connection: close, x-foo", b"X-Foo: 1"], [b"Via: 1.0 a"], [b"a:\t b "]):
        assert is_read(requests(field(b"B", *more)(b"1"), field(b"B", *more)(b"2")), field(b"B", *more)(b"3"))
    for more in ([b"Transfer-Encoding: chunked"], [b"Content-Type: text/event-stream"], [b"Connection: close"]):
        templates = replies(reply_field(b"B", *more)(b"1"), reply_field(b"B", *more)(b"2"))
        assert is_read_back(templates, reply_field(b"B", *more)(b"3"))


# What has no template


@pytest.mark.parametrize(
    ("one", "two", "more"),
    [
        (b"Host-Like", b"Other", ()),
        (b"Accept", b"accept", ()),
        (b"Cookie", b"Cookie", (b"Connection: cookie",)),
        (b"Accept", b"Accept", (b"Connection: close, accept",)),
        (b"Accept", b"Accept", (b"Accept: b",)),
        (b"X-Forwarded-For", b"X-Forwarded-For", (b"x-forwarded-for: 1",)),
        (b"X_Real_IP", b"X_Real_IP", ()),
        (b"X-Forwarded_For", b"X-Forwarded_For", ()),
        (b"Via", b"Via", ()),
        (b"Keep-Alive", b"Keep-Alive", ()),
        (b"TE", b"TE", ()),
        (b"Connection", b"Connection", ()),
        (b"Cookie", b"Cookie", (b"Expect: 100-continue",)),
        (b"Cookie", b"Cookie", (b"Transfer-Encoding: chunked",)),
        (b"Cookie", b"Cookie", (b"A: " + MARK,)),
        (b"Cookie", b"Cookie", (b"A: x" + MARK + b"x",)),
        (b"Content-Length", b"Content-Length", (b"Content-Length: 1, 1",)),
    ],
)
def test_requests_that_differ_in_what_matters_have_no_template(one: bytes, two: bytes, more: tuple[bytes, ...]) -> None:
    if one == b"Content-Length":
        templates = requests(*(get(b"/", *[b"Content-Length: %d" % number] * 2, method=b"POST") for number in (1, 2)))
    else:
        templates = requests(field(one, *more)(b"1"), field(two, *more)(b"2"))
    assert not templates._templates


@pytest.mark.parametrize("name", [b"X", b"Accept", b"X-Forwarded-For", b"Connection", b"Cookie", b"X-Request-ID"])
def test_a_name_ends_at_the_first_colon(name: bytes) -> None:
    """`X:a: 1` and `X:a: 2` once broke off a client, and X-Forwarded-For said what nobody had said."""
    made = field(name + b":a")
    assert not is_read(requests(made(b"1"), made(b"2")), made(b"3"))
    reply = reply_field(name + b":a")
    assert not is_read_back(replies(reply(b"1"), reply(b"2")), reply(b"3"))


def test_a_websocket_is_not_mistaken_for_a_request_with_a_body() -> None:
    """Its length decides: with one of 0 it is a websocket."""
    made = field(b"Content-Length", b"connection: upgrade", b"upgrade: websocket", method=b"GET")
    assert not is_read(requests(made(b"1"), made(b"2")), made(b"0"))


@pytest.mark.parametrize(
    "start", [b"HTTP/1.1 100 Continue", b"HTTP/1.1 103 Early Hints", b"HTTP/1.1 101 Switching Protocols"]
)
def test_an_interim_answer_has_no_template(start: bytes) -> None:
    assert not replies(*(response(b"A: %d" % number, start=start) for number in (1, 2)))._templates


@pytest.mark.parametrize(
    "name", [b"Content-Type", b"Content-Encoding", b"Retry-After", b"Via", b"Keep-Alive", b"Connection"]
)
def test_answers_that_differ_in_what_matters_have_no_template(name: bytes) -> None:
    assert not replies(reply_field(name)(b"a"), reply_field(name)(b"b"))._templates
    assert not replies(response(start=b"HTTP/1.1 200 a"), response(start=b"HTTP/1.1 200 b"))._templates


@pytest.mark.parametrize("number", [MOST_BLANKS, MOST_BLANKS + 1])
def test_there_are_only_so_many_blanks(number: int) -> None:
    heads = [get(b"/", *(b"A%d: %d" % (line, each) for line in range(number))) for each in range(3)]
    assert is_read(requests(*heads[:2]), heads[2]) == (number <= MOST_BLANKS)


# What is refused, and what is not all there


@each(
    [field(b"Cookie"), field(b"Content-Length"), field(b"X-Forwarded-For")],
    [b"\x00", b"\r", b"\n", b"\x7f", b"\x0b", b"\r\n c", b"\n\n", b"\r\r\n"],
)
def test_what_may_not_stand_in_a_value_is_not_read(made: Made, nasty: bytes) -> None:
    templates = requests(made(b"1"), made(b"2"))
    for value in (nasty, b"3" + nasty, nasty + b"3", b"3" + nasty + b"3"):
        assert templates.read(made(b"3").replace(b": 3", b": " + value)) is None


def test_a_line_more_or_less_is_another_head() -> None:
    templates = requests(get(b"/a", b"A: b", b"C: 1"), get(b"/b", b"A: b", b"C: 2"))
    for raw in (get(b"/", b"A: b"), get(b"/", b"A: b", b"C: 3", b"D: e"), get(b"/", b"A: b", b"C: 3\r\nHost: b")):
        assert templates.read(raw) is None
        assert templates.read(b"\r\n" + raw) is None


@each(REFUSED_REQUESTS, name=str)
def test_no_refused_request_is_read_by_templates_that_know_the_good_ones(case) -> None:
    templates = HeadTemplates(RequestTemplate)
    for raw in ACCEPTED_REQUESTS:
        templates.learn(raw)
        templates.learn(raw.replace(b" / ", b" /b "))
        assert templates.read(case.raw) is None


@each(REFUSED_RESPONSES, name=str)
def test_no_refused_answer_is_read_by_templates_that_know_the_good_ones(case) -> None:
    templates = HeadTemplates(ResponseTemplate)
    for raw in ACCEPTED_RESPONSES:
        templates.learn(raw)
        templates.learn(raw)
        assert templates.read(case.raw) is None


def test_a_head_cut_anywhere_is_not_read() -> None:
    made = [get(b"/%d" % n, b"Content-Length: %d" % n, b"A: b", b"Cookie: %d" % n, method=b"PUT") for n in range(3)]
    templates = requests(*made[:2])
    assert is_read(templates, made[2])
    for cut in range(len(made[2])):
        assert templates.read(made[2][:cut]) is None
    answers = [response(b"Content-Length: %d" % n, b"A: b", b"ETag: %d" % n) for n in range(3)]
    reads_back = replies(*answers[:2])
    assert is_read_back(reads_back, answers[2])
    for cut in range(len(answers[2])):
        assert reads_back.read(answers[2][:cut]) is None


def test_an_answer_with_a_head_over_the_limit_is_not_read() -> None:
    made = reply_field(b"A")
    templates = replies(made(b"a"), made(b"b"))
    room = RESPONSE_HEAD_BYTES - len(made(b""))
    assert is_read_back(templates, made(b"c" * room))
    assert not is_read_back(templates, made(b"c" * (room + 1)))


# What learning costs


def test_a_head_that_is_long_is_not_learned_from() -> None:
    for size in (LONGEST_BYTES, LONGEST_BYTES + 1):
        long = [b"A: " + b"a" * (size - len(get(b"/1", b"A: ")))]
        templates = requests(get(b"/1", *long), get(b"/2", *long))
        assert bool(templates._templates) == (size == LONGEST_BYTES)


class Counted(RequestTemplate):
    made = 0

    def __init__(self, one: Parts, two: Parts) -> None:
        Counted.made += 1
        super().__init__(one, two)


def test_heads_that_are_never_alike_cost_little_and_leave_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counted, "made", 0)
    templates = HeadTemplates(Counted)
    for number in range(4000):
        templates.learn(get(b"/", b"Host-%d: a" % number, *[b"A: b"] * (number % 50)))  # nothing alike
        templates.learn(get(b"/", b"Accept: a", b"Accept: %d" % number))  # alike, and yet in vain
        templates.learn(get(b"/", b"A%d: 1" % (number // 2), b"B: %d" % number))  # a template for every two
        assert len(templates._templates) <= KEPT_TEMPLATES
        assert len(templates._waiting) <= KEPT_HEADS
    assert Counted.made <= (3 * 4000 + MOST_REST) / REST + 1


def test_a_template_is_found_again_after_much_was_learned_in_vain() -> None:
    templates = requests(*(get(b"/", b"Accept: a", b"Accept: %d" % number) for number in range(1000)))
    for number in range(2 * REST):
        templates.learn(get(b"/%d" % number))
    assert is_read(templates, get(b"/a"))


def test_templates_that_nobody_uses_go_and_those_in_use_stay() -> None:
    templates = requests(get(b"/1", b"Used: a"), get(b"/2", b"Used: a"), get(b"/1", b"Idle: a"), get(b"/2", b"Idle: a"))
    for number in range(REST * (KEPT_TEMPLATES + 2)):
        templates.learn(get(b"/", b"A: %d" % (number // REST)))
        assert is_read(templates, get(b"/3", b"Used: a"))
    assert len(templates._templates) == KEPT_TEMPLATES
    assert not is_read(templates, get(b"/3", b"Idle: a"))


def test_heads_wait_by_their_number_of_lines() -> None:
    templates = requests(get(b"/1", b"A: b"), get(b"/1"), get(b"/2", b"A: b"), get(b"/2"))
    assert is_read(templates, get(b"/3", b"A: b"))
    assert is_read(templates, get(b"/3"))
