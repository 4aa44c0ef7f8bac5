import dataclasses
import json

import pytest

from lbproxy.telemetry import events as e
from lbproxy.telemetry.text import (
    comparison,
    event_from_json,
    event_json,
    event_text,
    iso_time,
    json_line,
    text_line,
    verdict,
)

NOON = 1767268800.0  # 2026-01-01T12:00:00Z
EVENTS = [cls for cls in vars(e).values() if isinstance(cls, type) and issubclass(cls, e.Event) and cls.name]
SAMPLES = {
    "int": 3,
    "float": 1.5,
    "bool": True,
    "str": "words",
    "tuple[str, ...]": ("one", "two"),
    "dict[str, int | str]": {"uid": 7},
    "dict[str, int]": {"1001": 3},
    "tuple[dict[str, int | float | None], ...]": ({"generation": 7},),
}
DONE = e.ReloadDone(
    reload="r1",
    pool="web",
    result="ok",
    generation=7,
    from_generation=6,
    duration_s=41.2,
    requests=24318,
    failed=0,
    cut=0,
    websockets_closed=31,
)


def sample(cls: type[e.Event]) -> e.Event:
    kinds = {field.name: getattr(field.type, "__name__", str(field.type)) for field in dataclasses.fields(cls)}
    kinds |= {name: "tuple[str, ...]" for name, kind in kinds.items() if kind == "tuple"}
    return cls(**{name: SAMPLES[kind.removesuffix(" | None")] for name, kind in kinds.items()})


def test_times_are_utc_with_milliseconds() -> None:
    assert iso_time(NOON + 0.0625) == "2026-01-01T12:00:00.062Z"


def test_an_event_reads_like_a_sentence() -> None:
    event = e.BackendReady("web", "web.3@7", 0.42)
    assert text_line(event, NOON) == b"2026-01-01T12:00:00.000Z info  web.3@7 ready after 0.4s\n"


@pytest.mark.parametrize("cls", EVENTS, ids=lambda cls: cls.name)
def test_every_event_has_words(cls: type[e.Event]) -> None:
    assert event_text(sample(cls)) not in ("", cls.name)


@pytest.mark.parametrize("cls", EVENTS, ids=lambda cls: cls.name)
def test_every_event_survives_json(cls: type[e.Event]) -> None:
    event = sample(cls)
    assert event_from_json(json.loads(json.dumps(event_json(event)))) == event


def test_fields_that_are_none_are_left_out_and_come_back() -> None:
    event = e.BackendExited("web", "web.1@2", 44, "exit code 3", None, ("boom",))
    values = event_json(event, NOON)
    assert values == {
        "event": "backend.exited",
        "time": "2026-01-01T12:00:00.000Z",
        "pool": "web",
        "backend": "web.1@2",
        "pid": 44,
        "how": "exit code 3",
        "output": ("boom",),
    }
    assert event_from_json(json.loads(json.dumps(values))) == event


def test_an_event_of_another_version_is_nobody() -> None:
    assert event_from_json({"event": "backend.sang", "song": "la"}) is None
    assert event_from_json({}) is None
    assert event_from_json({"event": "notice", "text": "x", "colour": "red"}) == e.Notice("x")


def test_a_json_line_is_one_line_with_its_level() -> None:
    line = json_line(e.ConfigRejected("lb.toml", "lb.toml:1:1: error\n1 error"), NOON)
    assert line.count(b"\n") == 1
    assert json.loads(line)["level"] == "error"


def test_what_has_many_lines_goes_on_indented() -> None:
    event = e.BackendNotReady("web", "web.1@2", "exit code 1", ("Traceback", "boom"))
    assert text_line(event, NOON).decode().splitlines() == [
        "2026-01-01T12:00:00.000Z error web.1@2 did not become ready: exit code 1",
        "    | Traceback",
        "    | boom",
    ]


def test_a_backend_cannot_write_into_the_operators_terminal() -> None:
    line = text_line(e.BackendOutput("web.1@2", "red \x1b[31m\r bell \x07 tab\t \udcff"), NOON)
    assert line.endswith(b"web.1@2 | red \\x1b[31m\\x0d bell \\x07 tab\t \\xdcff\n")


def test_generations_are_compared_when_both_have_answered() -> None:
    old = {"generation": 6, "requests": 1000, "errors": 1, "p99_s": 0.004, "backend_memory_bytes": 40 * 2**20}
    new = {"generation": 7, "requests": 200, "errors": 3, "p99_s": None, "backend_memory_bytes": None}
    assert comparison(DONE) is None
    assert comparison(dataclasses.replace(DONE, compared=(new,))) is None
    assert comparison(dataclasses.replace(DONE, compared=(old, new))) == (
        "web: generation 7 beside 6: 5xx 1.50 % and 0.10 %, p99 - and 4 ms, the largest backend - and 40.0 MiB"
    )


def test_the_verdict_is_that_of_the_contract() -> None:
    assert verdict(DONE) == (
        "reloaded web to generation 7 in 41.2s: 24318 requests served meanwhile, 0 failed, 0 connections cut"
    )


def test_a_recycle_says_which_backend_and_why() -> None:
    why = "uses 534 MiB, more than max_memory 512MiB"
    done = dataclasses.replace(DONE, verb="recycle", backend="web.3", why=why)
    assert verdict(done).startswith(f"recycled web.3 in 41.2s ({why}): 24318 requests")
    started = e.ReloadStarted("r1", "max_memory", ("web",), "recycle", backend="web.3", why=why)
    assert event_text(started) == f"recycle of web.3 started (max_memory): it {why}"


@pytest.mark.parametrize(
    ("result", "begin"),
    [
        ("rolled_back", "rolled back web to generation 6 in 41.2s (probe: 500): 24318 requests served meanwhile"),
        ("failed", "reload of web failed, capacity is reduced, in 41.2s (probe: 500): "),
        ("aborted", "reload of web aborted in 41.2s (probe: 500): "),
    ],
)
def test_a_verdict_says_what_became_of_the_pool(result: str, begin: str) -> None:
    assert verdict(dataclasses.replace(DONE, result=result, why="probe: 500")).startswith(begin)


def test_certificates_are_told_in_sentences() -> None:
    at, names = "2027-01-31T12:00:00.000Z", ("a.example", "b.example", "c.example", "d.example")
    assert event_text(e.CertificateLoaded("/a.pem", names, at, ("public",))) == (
        "certificate of a.example, b.example, c.example and 1 more loaded from /a.pem, valid until 2027-01-31"
    )
    assert event_text(e.CertificateRejected("/a.key", "is empty", ("public",))) == (
        "certificate not loaded, what was served before goes on: /a.key is empty"
    )
    said = [event_text(e.CertificateExpiring("/a.pem", names[:1], at, days, ())) for days in (20, 1, 0, -3)]
    assert [text.partition(" a.example ")[2].partition(":")[0] for text in said] == [
        "expires in 20 days",
        "expires in 1 day",
        "expires within a day",
        "has expired",
    ]
