"""The templates are found in the repository and in the wheel."""

import tomllib
from pathlib import Path

import pytest

from lbproxy.cli import config_files
from lbproxy.cli.config_files import NAMES, config_file

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", NAMES)
def test_the_repository_has_each(name: str) -> None:
    assert config_file(name) == (ROOT / "configs" / name).read_text()


def test_the_wheel_has_each() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"] == {f"configs/{name}": f"lbproxy/configs/{name}" for name in NAMES}


def test_those_of_the_package_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "Dockerfile").write_text("FROM here")
    monkeypatch.setattr(config_files, "files", lambda package: tmp_path)
    assert config_file("Dockerfile") == "FROM here"
