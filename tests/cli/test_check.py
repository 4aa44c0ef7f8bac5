import json
import tomllib
from pathlib import Path

import pytest

from lbproxy.cli.main import run

GOOD = """
[[listener]]
address = ":8080"

[pool.web]
command = "true {port}"
"""
BAD = GOOD.replace("command", "comand") + 'balance = "least_con"\n'


@pytest.fixture(autouse=True)
def _there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lbproxy.config.advice.rights", lambda settings: ())  # whoever runs the tests


def test_a_good_file_is_ok(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "lb.toml").write_text(GOOD)
    assert run(["check", "-c", "lb.toml"]) == 0
    assert capsys.readouterr().out == "lb.toml: ok: 1 listener, 1 pool\n"
    assert run(["check", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"ok": True, "path": "./lb.toml", "errors": [], "warnings": []}


def test_every_mistake_is_said_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "lb.toml").write_text(BAD)
    assert run(["-c", "lb.toml", "check"]) == 78
    out = capsys.readouterr().out
    assert "lb.toml:6:1: error: unknown key 'comand' in [pool.web] (did you mean 'command'?)" in out
    assert "lb.toml:7:1: error: pool.web.balance: " in out


def test_mistakes_have_their_places_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "lb.toml").write_text(BAD)
    assert run(["check", "--json"]) == 78
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"] is False
    assert {"file", "line", "column", "message", "source"} == set(answer["errors"][0])


def test_a_file_that_is_not_there_is_invalid(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check"]) == 78
    assert capsys.readouterr().out.startswith("./lb.toml: error: cannot be read")


def test_a_warning_has_its_place_and_changes_no_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "lb.toml").write_text(GOOD.replace("true {port}", "./uvicron {port}"))
    assert run(["check", "-c", "lb.toml"]) == 0
    assert capsys.readouterr().out == (
        f"lb.toml:6:1: warning: pool.web.command: there is no program './uvicron' in {tmp_path}\n"
        "lb.toml: ok: 1 listener, 1 pool\n"
    )


def test_the_effective_configuration_has_every_default_and_is_accepted_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lb.toml").write_text(GOOD + 'env = { API_TOKEN = "hunter2" }\n')
    assert run(["check", "--effective"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("# ./lb.toml with every default, as lbproxy ")
    assert '\nwebsocket = "5s"\n' in out
    assert "hunter2" not in out
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "all.toml").write_text(out)
    assert run(["check", "-c", "elsewhere/all.toml"]) == 0
    capsys.readouterr()
    assert run(["check", "--effective", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["effective"] == tomllib.loads(out)


def test_the_effective_configuration_of_a_file_with_mistakes_is_the_mistakes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lb.toml").write_text(BAD)
    assert run(["check", "--effective"]) == 78
    assert capsys.readouterr().out.endswith("2 errors\n")


def test_an_env_file_with_mistakes_is_told_before_serve_refuses_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lb.toml").write_text(GOOD + 'env_file = "env"\n')
    (tmp_path / "env").write_text("A=1\nnonsense\n")
    assert run(["check", "-c", "lb.toml"]) == 78
    assert f"{tmp_path}/env:2: error: expected KEY=VALUE, got 'nonsense'" in capsys.readouterr().out


def test_a_file_that_is_not_named_with_c_is_told_how(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "my.toml"]) == 2
    assert "(a file is named with -c: lbproxy check -c my.toml)" in capsys.readouterr().err


def test_what_an_authority_would_stumble_over_is_a_mistake_of_its_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lb.toml").write_text(
        '[[listener]]\naddress = ":80"\n[[listener]]\naddress = ":443"\n'
        'tls = { acme = { domains = ["a.invalid"] } }\n[pool.web]\ntargets = ["127.0.0.1:1"]\n'
    )
    assert run(["check"]) == 0
    capsys.readouterr()
    assert run(["check", "--acme"]) == 78
    assert "lb.toml:5:9: error: listener.tls.acme: a.invalid: has no address in the DNS (" in capsys.readouterr().out
