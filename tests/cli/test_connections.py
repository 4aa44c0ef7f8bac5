"""The words of `lbproxy connections`. Against a real lbproxy: tests/e2e/test_connections.py."""

import pytest

from lbproxy.cli.connections import _pages, size_text, why
from lbproxy.cli.options import Fail


class Client:
    def __init__(self, *pages):
        self.pages = list(pages)
        self.targets = []

    def get(self, target):
        self.targets.append(target)
        return {"connections": [], "next": None, "silent_workers": [], "states": {}, **self.pages.pop(0)}


def row(id, backend):
    return {
        "id": id,
        "client": "127.0.0.1:5",
        "kind": "websocket",
        "backend": backend,
        "age_s": 75.0,
        "bytes_10s": 1536,
        "rule": "websocket",
        "grace_s": 10.0,
        "left_s": 3.25,
    }


def test_sizes_are_short():
    assert [size_text(number) for number in (None, 0, 1023, 1024, 1572864)] == ["-", "0B", "1023B", "1.0KiB", "1.5MiB"]


def test_pages_follow_each_other(capsys):
    client = Client({"next": "w1-7", "silent_workers": [2]}, {})
    assert len(list(_pages(client, "web.3"))) == 2
    assert client.targets == ["/v1/connections?source=web.3", "/v1/connections?source=web.3&after=w1-7"]
    assert capsys.readouterr().err == "lbproxy: worker 2 does not answer: its connections are missing\n"


def test_why_shows_only_what_holds_the_drain(capsys):
    states = {"web.3@1": "draining", "web.3@2": "ready"}
    client = Client({"states": states, "connections": [row("w1-1", "web.3@1"), row("w1-2", "web.3@2")]})
    assert why(client, "web.3") == 0
    head, line = capsys.readouterr().out.splitlines()
    assert line.split() == [
        *("w1-1", "127.0.0.1:5", "websocket", "web.3@1", "1m15s", "1.5KiB", "websocket", "10.0s", "3.2s")
    ]
    assert head.startswith("CONNECTION")
    assert why(Client({"states": states}), "web.3") == 0
    assert capsys.readouterr().out == "web.3 drains, and nothing holds it any more\n"


@pytest.mark.parametrize(
    ("states", "words"),
    [({"web.3@2": "ready"}, "web.3 does not drain: it is ready"), ({}, "it is a pool: name one of its backends")],
)
def test_why_of_what_does_not_drain_is_an_error(states, words):
    with pytest.raises(Fail, match=words) as refused:
        why(Client({"states": states}), "web.3")
    assert refused.value.exit_code == 1
