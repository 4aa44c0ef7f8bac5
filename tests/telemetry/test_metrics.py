"""The exposition: every family of CONTRACT.md 5, in the format that was asked for, whatever text a label has."""

import shutil
import subprocess

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from lbproxy.telemetry.histogram import Histogram
from lbproxy.telemetry.metrics import FAMILIES, Samples, key_of, render

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
NASTY = 'a"b\\c\nd{}, # \u00fc\u2028'


def one_of_each(text: str) -> Samples:
    made: Samples = {
        key_of(family): [(tuple(text for _ in family.labels), Histogram((0.5, 2.0)))]
        if family.kind == "histogram"
        else [(tuple(text for _ in family.labels), 3)]
        for family in FAMILIES
    }
    return made


def test_families_have_names_and_labels_of_their_own() -> None:
    assert len({key_of(family) for family in FAMILIES}) == len(FAMILIES)
    for family in FAMILIES:
        assert family.help
        assert not {"path", "host", "pid"} & set(family.labels), "the contract forbids them"


@pytest.mark.parametrize("text", ["web", NASTY], ids=["plain", "nasty"])
def test_the_usual_format_can_be_read_back(text: str) -> None:
    body, content_type = render(one_of_each(text), "")
    assert content_type.startswith("text/plain; version=0.0.4")
    found = {family.name: family for family in parse_text(body.decode())}
    for family in FAMILIES:
        samples = [sample for sample in found[family.name].samples if sample.name.startswith(family.name)]
        assert samples
        assert all(sample.labels[label] == text for sample in samples for label in family.labels)


@pytest.mark.parametrize("text", ["web", NASTY], ids=["plain", "nasty"])
def test_openmetrics_can_be_asked_for(text: str) -> None:
    body, content_type = render(one_of_each(text), f"{OPENMETRICS},text/plain;q=0.5")
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert len(list(parse_openmetrics(body.decode()))) == len(FAMILIES)


def test_buckets_are_sums_up_to_infinity() -> None:
    durations = Histogram((0.5, 2.0))
    for value in (0.1, 1.0, 1.5, 9.0):
        durations.observe(value)
    body, _ = render({"queue_wait_seconds": [(("web",), durations)]}, "")
    lines = [line for line in body.decode().splitlines() if line.startswith("lbproxy_queue_wait_seconds")]
    assert lines == [
        'lbproxy_queue_wait_seconds_bucket{le="0.5",pool="web"} 1.0',
        'lbproxy_queue_wait_seconds_bucket{le="2.0",pool="web"} 3.0',
        'lbproxy_queue_wait_seconds_bucket{le="+Inf",pool="web"} 4.0',
        'lbproxy_queue_wait_seconds_count{pool="web"} 4.0',
        'lbproxy_queue_wait_seconds_sum{pool="web"} 11.6',
    ]


@pytest.mark.parametrize("accept", ["*/*", "nonsense", ";;,=", "text/html;q=x", "\u00e4"])
def test_an_accept_field_that_means_nothing_gets_the_usual_format(accept: str) -> None:
    assert render({}, accept)[1].startswith("text/plain")


@pytest.mark.peer("promtool")
def test_promtool_has_nothing_to_say() -> None:
    promtool = shutil.which("promtool")
    assert promtool is not None
    body, _ = render(one_of_each("web"), "")
    done = subprocess.run([promtool, "check", "metrics"], input=body, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
