import json

import pytest

from lbproxy.cli import explain
from lbproxy.cli.main import run
from lbproxy.config.reference import entries

WEBSOCKET = """\
pool.web.drain.websocket
  WebSockets are told Close at moments spread evenly over this time; "0s" is all at once.

  type     a duration such as "250ms", "30s", "5m", "1h" or "7d"
  default  "5s"
  example  [pool.web.drain]
           websocket = "20s"
  applies  at every reload; with --config-only without new backends
"""


def test_a_key_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["explain", "pool.web.drain.websocket"]) == 0
    assert capsys.readouterr().out == WEBSOCKET
    assert run(["explain", "pool.NAME.drain.websocket"]) == 0
    assert capsys.readouterr().out == WEBSOCKET.replace("web.", "NAME.")


def test_a_table_lists_its_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["explain", "pool.shop.restart"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("[pool.shop.restart]\n  ")
    for key in ("backoff", "give_up", "stop_signal", "stop_timeout"):
        assert f"\n    {key} " in out


def test_without_a_key_all_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["explain"]) == 0
    out = capsys.readouterr().out
    for entry in entries():
        assert entry.about in out
        assert (entry.header_for() if entry.is_table else f"\n    {entry.path[-1]} ") in out


def test_all_that_is_said_is_there_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["explain", "--json", "websocket"]) == 0
    [facts] = json.loads(capsys.readouterr().out)
    assert facts["key"] == "pool.NAME.drain.websocket"
    assert (facts["default"], facts["example"]) == ("5s", "20s")
    assert run(["explain", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == len(entries())


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("pool.web.drian.websocket", "did you mean 'pool.web.drain.websocket'?"),
        ("zzz", "lbproxy explain lists all keys"),
    ],
)
def test_an_unknown_key_is_2(key: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["explain", key]) == 2
    assert capsys.readouterr() == ("", f"lbproxy: no key is called '{key}' ({hint})\n")


def test_a_key_that_is_not_supported_yet_is_called_that(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lbproxy.config.reference.not_supported", lambda key: True)
    assert run(["explain", "pool.web.moon"]) == 1
    assert capsys.readouterr().err == "lbproxy: 'pool.web.moon' is not supported yet\n"


def test_on_a_terminal_long_lines_are_wrapped_below_their_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain, "on_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    lines = explain._wrapped("  type", "word " * 20, 11)
    assert lines[0].startswith("  type     word")
    assert lines[1].startswith(" " * 11 + "word")
    assert max(map(len, lines)) <= 40
