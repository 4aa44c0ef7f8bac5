import platform

import pytest

from lbproxy import __version__
from lbproxy.cli.main import run


def test_the_version_names_lbproxy_and_python(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["version"]) == 0
    assert capsys.readouterr().out == f"lbproxy {__version__} (Python {platform.python_version()})\n"


def test_it_is_an_option_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert run(["version"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == second
