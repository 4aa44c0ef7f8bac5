import sys
from pathlib import Path

import pytest

from lbproxy.cli.options import Options


def test_what_stands_after_the_name_wins_and_the_rest_is_kept() -> None:
    outer = Options(config="a", control="x", color="never", verbosity=1)
    assert Options().over(outer) == outer
    assert Options("b", "y", "always", -1).over(outer) == Options("b", "y", "always", 0)


def test_the_configuration_is_lb_toml_unless_said() -> None:
    assert Options().config_path == "./lb.toml"


def test_the_control_socket_is_what_the_file_says_even_with_mistakes(tmp_path: Path) -> None:
    file = tmp_path / "lb.toml"
    file.write_text('[proxy]\nwokers = 1\ncontrol = "run/lb.sock"\n')
    assert Options(config=str(file)).control_paths == [str(tmp_path / "run/lb.sock")]
    assert Options(config=str(file), control="/run/my.sock").control_paths == ["/run/my.sock"]


class Terminal:
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("color", "no_color", "terminal", "colored"),
    [
        ("auto", "", True, True),
        ("auto", "1", True, False),
        ("auto", "", False, False),
        ("always", "1", False, True),
        ("never", "", True, False),
    ],
)
def test_colors_are_as_asked_for(
    monkeypatch: pytest.MonkeyPatch, color: str, no_color: str, terminal: bool, colored: bool
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    if terminal:
        monkeypatch.setattr(sys, "stdout", Terminal())
    assert Options(color=color).colored("x", "red") == ("\x1b[31mx\x1b[0m" if colored else "x")


def test_a_closed_standard_output_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "stdout", None)
    assert Options().colored("x", "red") == "x"
