from pathlib import Path

import pytest

from lbproxy.cli.main import run
from lbproxy.cli.options import Options
from lbproxy.cli.serve import overridden
from lbproxy.settings import LogSettings, ProxySettings, Settings

SETTINGS = Settings("lb.toml", ProxySettings("edge-1", 1, "/run/lb.sock", None, (20000, 29999)), (), (), ())


@pytest.mark.parametrize("args", [["-n", "4"], ["-l", ":8080"], ["-n", "4", "--", "app"], ["--", "app"], ["-n", "0"]])
def test_half_of_the_form_without_a_file_is_a_usage_error(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["serve", *args]) == 2
    assert "serve" in capsys.readouterr().err


def test_an_invalid_file_is_reported_and_nothing_is_started(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "lb.toml").write_text("[proxy]\nwokers = 4\n")
    assert run(["serve", "-c", str(tmp_path / "lb.toml")]) == 78
    assert "unknown key 'wokers' in [proxy] (did you mean 'workers'?)" in capsys.readouterr().err


def test_an_invalid_command_line_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["serve", "-l", "nonsense", "--", "app", "{port}"]) == 78
    assert "-l: error: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("verbosity", "level"), [(0, "info"), (1, "debug"), (2, "debug"), (-1, "warning"), (-9, "error")]
)
def test_verbosity_steps_through_the_levels(verbosity: int, level: str) -> None:
    assert overridden(SETTINGS, Options(verbosity=verbosity)).log == LogSettings(level=level)


def test_a_control_path_on_the_command_line_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert overridden(SETTINGS, Options(control="my.sock")).proxy.control == str(tmp_path / "my.sock")
    assert overridden(SETTINGS, Options()) is SETTINGS
