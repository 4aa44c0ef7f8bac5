import os
import subprocess
import sys
from pathlib import Path

import pytest

from lbproxy.config.control_path import (
    control_path,
    control_path_for_listener,
    control_paths,
    named_path,
    resolve,
    why_not_private,
)

BROKEN = "this is not TOML =\n"


@pytest.fixture(autouse=True)
def runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")


def of(text: str, directory: Path) -> str:
    (directory / "lb.toml").write_bytes(text.encode())
    return control_path(str(directory / "lb.toml"))


def test_the_default_is_named_after_the_file_and_its_full_path(tmp_path: Path):
    found = of("", tmp_path)
    assert found.startswith("/run/user/7/lbproxy/lb-")
    assert found.endswith(".sock")
    assert found == of("[proxy]\n", tmp_path) == of("[proxy]\ncontrol = 4", tmp_path) == of(BROKEN, tmp_path)


def test_two_files_of_one_name_have_two_sockets(tmp_path: Path):
    assert control_path(str(tmp_path / "a/lb.toml")) != control_path(str(tmp_path / "b/lb.toml"))


def test_a_file_is_the_same_however_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert control_path("lb.toml") == control_path("./x/../lb.toml") == control_path(str(tmp_path / "lb.toml"))


def test_a_release_directory_that_moves_on_keeps_its_socket(tmp_path: Path):
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    current = tmp_path / "current"
    current.symlink_to("1")
    before = control_path(str(current / "lb.toml"))
    current.unlink()
    current.symlink_to("2")
    assert control_path(str(current / "lb.toml")) == before


def test_without_a_runtime_directory_it_is_in_run(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert control_path("lb.toml").startswith("/run/lbproxy/lb-")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "")
    assert control_path("lb.toml").startswith("/run/lbproxy/lb-")


def test_the_default_fits_into_a_socket_address(tmp_path: Path):
    assert len(os.path.basename(control_path(str(tmp_path / ("é x" * 80 + ".toml"))))) <= 50


def test_the_form_without_a_file_is_named_after_its_listener():
    assert control_path_for_listener(":8080").startswith("/run/user/7/lbproxy/8080-")
    assert control_path_for_listener(":8080") != control_path_for_listener("127.0.0.1:8080")
    assert "/" not in control_path_for_listener("unix:/run/a.sock").removeprefix("/run/user/7/lbproxy/")


def test_what_the_file_says_is_relative_to_it(tmp_path: Path):
    assert of("[proxy]\ncontrol = 'run/lb.sock'", tmp_path) == f"{tmp_path}/run/lb.sock"
    assert of("[proxy]\ncontrol = '/run/lb.sock'", tmp_path) == "/run/lb.sock"
    assert resolve(f"{tmp_path}/lb.toml", "a") == f"{tmp_path}/a"


@pytest.mark.parametrize(
    "text",
    [
        "[proxy]\ncontrol = '/a'\n[pool.web]\nbalance = 'nonsense'\nwokers = 4\n",
        "\ufeff[proxy]\r\ncontrol = '/a'\r\n" + BROKEN,
        BROKEN + "[proxy]\ncontrol = '/a'",
        "  [ proxy ] # x\n\tcontrol='/a' # y\n" + BROKEN,
        '[proxy]\ncontrol = "\\u002fa"\n' + BROKEN,
        "proxy.control = '/a'\n" + BROKEN,
        "[other]\ncontrol = '/b'\n[[listener]]\ncontrol = '/c'\n[proxy]\ncontrol = '/a'\n" + BROKEN,
        "[proxy]\n[proxy.more]\ncontrol = '/b'\n[proxy]\ncontrol = '/a'\n",
    ],
)
def test_it_is_found_while_the_file_has_mistakes_elsewhere(text: str, tmp_path: Path):
    assert of(text, tmp_path) == "/a"


@pytest.mark.parametrize("text", ["[proxy]\ncontrol = '/a", "[proxy]\n[x\ncontrol = '/a'", '[proxy]\ncontrol = "\\q"'])
def test_what_cannot_be_read_at_all_gives_the_default(text: str, tmp_path: Path):
    assert of(text, tmp_path) == of("", tmp_path)


def test_a_file_that_is_not_utf_8_still_has_a_socket(tmp_path: Path):
    (tmp_path / "lb.toml").write_bytes(b"# \xff\n[proxy]\ncontrol = '/a'\n")
    assert control_path(str(tmp_path / "lb.toml")) == "/a"


def test_a_client_that_asks_imports_nothing_heavy():
    code = "import sys, lbproxy.config.control_path; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"pydantic", "trio", "h11", "lbproxy.config.schema"} & set(run.stdout.split())


def test_a_directory_is_called_what_the_shell_calls_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    current = tmp_path / "current"
    current.symlink_to("1")
    monkeypatch.chdir(current)
    monkeypatch.setenv("PWD", str(current))
    assert named_path("lb.toml") == f"{current}/lb.toml"
    before = control_path("lb.toml")
    current.unlink()
    current.symlink_to("2")
    assert named_path("lb.toml") == f"{tmp_path}/1/lb.toml", "the name leads somewhere else now"
    assert before in control_paths("lb.toml"), "but a command in the old directory still finds the socket"
    monkeypatch.chdir(current)
    assert control_path("lb.toml") == before


def test_a_client_looks_everywhere_whatever_its_own_environment_says(monkeypatch: pytest.MonkeyPatch):
    with_it = control_path("lb.toml")
    there = control_paths("lb.toml")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    without = control_path("lb.toml")
    assert without != with_it
    assert {with_it, without} <= set(there)
    assert without in control_paths("lb.toml")


def test_a_directory_of_last_resort_must_be_private(tmp_path: Path):
    place = tmp_path / "place"
    assert why_not_private(str(place)) is None
    place.mkdir(mode=0o700)
    assert why_not_private(str(place)) is None
    place.chmod(0o755)
    assert why_not_private(str(place)) == "it is open to other users"
    link = tmp_path / "link"
    place.chmod(0o700)
    link.symlink_to(place)
    assert why_not_private(str(link)) == "it is not a directory"
    if os.geteuid() == 0:
        os.chown(place, 1, 1)
        assert why_not_private(str(place)) == "it belongs to another user"


def test_where_neither_place_can_be_written_there_is_one_that_always_works(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/proc/nowhere")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert os.path.dirname(control_path("lb.toml")) == f"/tmp/lbproxy-{os.geteuid()}"


def test_a_working_directory_that_is_deleted_keeps_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Old releases are deleted while lbproxy runs in one of them."""
    release = tmp_path / "1"
    release.mkdir()
    monkeypatch.chdir(release)
    monkeypatch.setenv("PWD", str(tmp_path / "current"))  # a link that leads elsewhere by now
    release.rmdir()
    assert named_path("/etc/lb.toml") == "/etc/lb.toml"
    assert named_path("lb.toml") == str(tmp_path / "current/lb.toml")
    monkeypatch.delenv("PWD")
    assert named_path("lb.toml") == str(release / "lb.toml")
