import os
import tomllib
from pathlib import Path

import pytest

from lbproxy.address import Address
from lbproxy.config.machine_checks import absolute, check


def messages(text: str, base: Path) -> list[str]:
    return [finding.message for finding in check(tomllib.loads(text), str(base))]


def test_what_is_there_is_found_from_the_directory_of_the_file(tmp_path: Path):
    (tmp_path / "releases").mkdir()
    (tmp_path / "current").symlink_to("releases")
    (tmp_path / ".env").touch()
    text = f"[pool.web]\ndirectory = 'current'\nenv_file = '.env'\nuser = 'root'\n[pool.b]\ndirectory = '{tmp_path}'"
    assert messages(text, tmp_path) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("directory = 'gone'", "there is no directory '{base}/gone'"),
        ("directory = '.env'", "there is no directory '{base}/.env'"),
        ("env_file = 'gone'", "there is no file '{base}/gone'"),
        ("env_file = '.'", "there is no file '{base}/.'"),
        ("tls.ca = 'gone'", "'{base}/gone' cannot be read: No such file or directory"),
        ("tls.ca = '.env'", "'{base}/.env' holds no certificate in PEM"),
        ("user = 'nobody-of-that-name'", "there is no user 'nobody-of-that-name'"),
        ("[[listener]]\naddress = ':1'\nsocket_group = 'no-such-group'", "there is no group 'no-such-group'"),
    ],
)
def test_what_is_not_there_is_told(text: str, message: str, tmp_path: Path):
    (tmp_path / ".env").touch()
    assert messages(f"[pool.web]\n{text}", tmp_path) == [message.format(base=tmp_path)]


def test_a_directory_of_challenges_that_is_not_there_is_told(tmp_path: Path):
    (tmp_path / "acme").mkdir()
    text = "[[listener]]\nacme_challenges = 'acme'\n[[listener]]\nacme_challenges = 'gone'\n"
    assert messages(text, tmp_path) == [f"there is no directory '{tmp_path}/gone'"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_env_file_that_cannot_be_read_is_told(tmp_path: Path):
    (tmp_path / ".env").touch(mode=0)
    assert messages("[pool.web]\nenv_file = '.env'", tmp_path)[0].endswith("cannot be read")


def test_the_path_of_a_unix_socket_is_measured_from_the_root():
    base = Path("/" + "d" * 100)
    text = "[proxy]\ncontrol = 'lb.sock'\n[[listener]]\naddress = 'unix:p.sock'\n[pool.a]\ntargets = ['unix:abc.sock']"
    assert len(messages(text, base)) == 3
    assert messages(text, Path("/run")) == []
    assert len(messages(f"[proxy]\ncontrol = '/{'d' * 107}'", Path("/run"))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "listener = 1\npool = 1\nproxy = 1",
        "[pool.web]\ndirectory = 1\nenv_file = 2\nuser = 3\ntargets = 4\ntls = 5",
        '[pool.web]\ndirectory = \'\'\nenv_file = "\\u0000"\nuser = "\\u0000"\ntargets = [1]',
        "[[listener]]\naddress = 1\n[proxy]\ncontrol = 1",
    ],
)
def test_a_wrong_shape_is_left_to_the_schema(text: str, tmp_path: Path):
    assert messages(text, tmp_path) == []


def test_only_unix_addresses_become_absolute():
    assert absolute("/srv", Address(path="run/a")) == Address(path="/srv/run/a")
    assert absolute("/srv", Address("", 80)) == Address("", 80)
