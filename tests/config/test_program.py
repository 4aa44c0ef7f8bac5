import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lbproxy.config.program import why_no_program
from lbproxy.settings import PoolSettings
from lbproxy.supervise.command import CannotStart, find_program

Told = Callable[..., str | None]


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Told:
    """What is said about a command, in a directory with bin/run, bin/text and a PATH of `bin` and of nothing."""
    for name, mode in (("run", 0o755), ("text", 0o644)):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text("#!/bin/sh\n")
        program.chmod(mode)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/nowhere")

    def why(word: str, **settings: object) -> str | None:
        pool = PoolSettings("web", command=(word, "--port", "{port}"), directory=str(tmp_path), **settings)
        said = why_no_program(pool)
        if not settings:  # the spawn says the same
            try:
                find_program(word, str(tmp_path), os.environ["PATH"])
                assert said is None
            except CannotStart:
                assert said is not None
        return said

    return why


@pytest.mark.parametrize("word", ["run", "bin/run", "./bin/run", "/bin/sh"])
def test_a_program_that_is_there_needs_no_words(word: str, told: Told) -> None:
    assert told(word) is None


def test_a_program_that_is_not_there_is_told(told: Told, tmp_path: Path) -> None:
    assert told("runn") == "there is no program 'runn' in PATH (did you mean 'run'?)"
    assert told("zzzzzz") == f"there is no program 'zzzzzz' in PATH ({os.environ['PATH']})"
    assert told("./zzz") == f"there is no program './zzz' in {tmp_path}"


def test_a_file_that_cannot_be_executed_is_told(told: Told, tmp_path: Path) -> None:
    assert told("text") == f"'{tmp_path}/bin/text' is not a program: it is not executable"
    assert told("bin/text") == f"'{tmp_path}/bin/text' is not a program: it is not executable"
    assert told("./bin") == f"'{tmp_path}/./bin' is not a program: it is not executable"


def test_the_virtual_environment_of_the_project_is_the_best_hint(told: Told, tmp_path: Path) -> None:
    (tmp_path / ".venv").mkdir()
    (tmp_path / "bin").rename(tmp_path / ".venv" / "bin")
    assert told("run") == "there is no program 'run' in PATH (there is .venv/bin/run)"


def test_the_path_is_the_one_of_the_backends(told: Told, tmp_path: Path) -> None:
    assert told("run", env=(("PATH", "/nowhere"),)) is not None
    assert told("zzz", env=(("PATH", "."),)) is not None
    assert told("text", env=(("PATH", "bin"),)) is not None
    assert told("run", env=(("PATH", "bin"),)) is None
    (tmp_path / ".env").write_text("A=1\nexport PATH = /opt/bin\n")
    assert told("zzz", env_file=str(tmp_path / ".env")) is None
    (tmp_path / ".env").write_text("MYPATH=/opt/bin\n")
    assert told("zzz", env_file=str(tmp_path / ".env")) is not None
    assert told("zzz", env_file="/nowhere") is not None


def test_what_cannot_be_known_is_not_doubted(told: Told) -> None:
    assert told("run-{slot}", env=()) is None
    assert why_no_program(PoolSettings("web", command=("zzz",), directory="/nowhere")) is None
    assert why_no_program(PoolSettings("web")) is None
