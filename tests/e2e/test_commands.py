"""The command line as a user finds it: options, environment, colours, exit codes."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.serve import LBPROXY, Serving, serving
from support.web import web


@pytest.fixture(scope="module")
def lb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(web(), tmp_path_factory.mktemp("commands")) as lb:
        yield lb


def run(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*LBPROXY, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        cwd=cwd,
        env={**os.environ, **environment},
    )


def test_the_environment_says_where_things_are(lb: Serving) -> None:
    assert run("status", "-q", LBPROXY_CONTROL=lb.control).returncode == 0
    assert run("check", LBPROXY_CONFIG=str(lb.config)).returncode == 0
    assert run("check", cwd=lb.config.parent).returncode == 0  # ./lb.toml
    assert run("check", cwd=Path("/")).returncode == 78


def test_colours_are_for_terminals_or_who_asks(lb: Serving) -> None:
    assert "\x1b[" not in lb.cli("status").stdout
    assert "\x1b[32m" in lb.cli("status", "--color", "always").stdout
    assert "\x1b[" not in lb.cli("--color", "never", "status").stdout


def test_help_and_version_need_no_configuration() -> None:
    assert run("version", cwd=Path("/")).stdout.startswith("lbproxy ")
    listed = run("--help").stdout
    for name in ("serve", "check", "status", "reload", "stop", "logs", "version"):
        assert f"  {name} " in listed


@pytest.mark.parametrize(
    "arguments",
    [
        ["relaod"],
        ["reload", "--timeout", "5"],
        ["reload", "--timeout", "soon"],
        ["logs", "-n", "-1"],
        ["status", "a", "b"],
        ["--color", "blue", "status"],
        ["serve", "--nonsense"],
    ],
)
def test_usage_errors_are_2(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_quiet_reloads_show_the_verdict_only(lb: Serving) -> None:
    done = lb.cli("reload", "-q")
    assert done.returncode == 0
    assert [line[:16] for line in done.stdout.splitlines()] == ["reloaded web to "]


def test_check_shows_mistakes_as_json_too(tmp_path: Path) -> None:
    (tmp_path / "lb.toml").write_text("[proxy]\nwokers = 4\n[pool.web]\ncommand = 'x'\n")
    done = run("-c", str(tmp_path / "lb.toml"), "check", "--json")
    assert done.returncode == 78
    assert "wokers" in json.dumps(json.loads(done.stdout))


def test_auto_is_as_many_as_there_are_cpus(tmp_path: Path) -> None:
    cpus = len(os.sched_getaffinity(0))
    config = web().replace("size = 2", 'size = "auto"').replace("workers = 1", 'workers = "auto"')
    with serving(config, tmp_path) as lb:
        assert len(lb.backends()) == cpus
        assert len(lb.status()["workers"]) == cpus
