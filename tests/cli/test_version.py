import platform

import pytest

from lbproxy import __version__
from lbproxy.cli.main import run


def test_the_version_names_lbproxy_and_python(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["version"]) == 0
    assert capsys.readouterr().out == f"lbproxy {__version__} (Python {platform.python_version()})\n"
