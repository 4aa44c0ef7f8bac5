import pytest

from lbproxy.cli.main import COMMANDS, run


@pytest.mark.parametrize("name", [name for name, module in COMMANDS.items() if module is None])
@pytest.mark.parametrize("args", [[], ["web.3", "--why"], ["-c", "lb.toml", "--to", "6"]])
def test_what_is_not_built_yet_is_refused_clearly(
    name: str, args: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([name, *args]) == 1
    assert capsys.readouterr() == ("", f"lbproxy: '{name}' is not supported yet\n")
