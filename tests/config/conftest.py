from collections.abc import Callable
from pathlib import Path

import pytest

from lbproxy.config.load import load
from lbproxy.config.problems import ConfigInvalid
from lbproxy.settings import Settings

Load = Callable[[str], Settings]
Report = Callable[[str], str]


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Write lb.toml into the current directory (which is `tmp_path`) and load it."""
    monkeypatch.chdir(tmp_path)

    def write_and_load(text: str) -> Settings:
        (tmp_path / "lb.toml").write_bytes(text.encode())
        return load("lb.toml")

    return write_and_load


@pytest.fixture
def report(loaded: Load) -> Report:
    """The whole report about a file that is not valid."""

    def refused(text: str) -> str:
        with pytest.raises(ConfigInvalid) as caught:
            loaded(text)
        return caught.value.text

    return refused
