"""Where lbproxy is found: symlinked release directories, other environments, other users, no file at all."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.serve import LBPROXY, Serving, serving
from support.users import needs_root
from support.web import web


def client(*words: str, cwd: Path, **environment: str | None) -> "subprocess.CompletedProcess[str]":
    """A command as a person would type it, without -c and --control."""
    env = {name: value for name, value in {**os.environ, "PWD": str(cwd), **environment}.items() if value is not None}
    return subprocess.run([*LBPROXY, *words], cwd=cwd, env=env, capture_output=True, text=True, timeout=60, check=False)


def release(root: Path, number: int) -> None:
    directory = root / "releases" / str(number)
    directory.mkdir(parents=True)
    (directory / "name").write_text(f"release {number}\n")


def point_to(root: Path, number: int) -> None:
    new = root / "new"
    new.symlink_to(f"releases/{number}")
    new.rename(root / "current")


COMMAND = "sh -c 'cat name; exec $brittle'"


def test_in_a_directory_that_is_a_symlink_a_reload_serves_the_new_release(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        release(tmp_path, number)
    point_to(tmp_path, 1)
    current = tmp_path / "current"

    def arguments(lb: Serving) -> list[str]:
        shutil.copy(lb.config, tmp_path / "releases" / "1" / "lb.toml")
        shutil.copy(lb.config, tmp_path / "releases" / "2" / "lb.toml")
        return ["serve"]

    runtime = tempfile.mkdtemp(prefix="lb-")
    environment = {"PWD": str(current), "XDG_RUNTIME_DIR": runtime}
    prefix = ["sh", "-c", f'cd {current} && exec "$@"', "sh"]
    with serving(
        web(size=1, command=COMMAND), tmp_path, arguments=arguments, prefix=prefix, environment=environment
    ) as lb:
        assert "release 1" in client("logs", cwd=current, XDG_RUNTIME_DIR=runtime).stdout
        point_to(tmp_path, 2)
        done = client("reload", cwd=current, XDG_RUNTIME_DIR=runtime)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "release 2" in client("logs", "--gen", "2", cwd=current, XDG_RUNTIME_DIR=runtime).stdout
        # A shell that has stood in the old directory all the time, under the same name.
        old = subprocess.run(
            [*LBPROXY, "status"], cwd=tmp_path / "releases" / "1", env={**os.environ, **environment}, check=False
        )
        assert old.returncode == 0
        assert lb.stop() == 0
    shutil.rmtree(runtime)


def test_a_service_without_a_runtime_directory_is_found_by_a_command_that_has_one(tmp_path: Path) -> None:
    runtime = tempfile.mkdtemp(prefix="lb-")
    words = ["-c", str(tmp_path / "lb.toml")]
    environment = {"XDG_RUNTIME_DIR": ""}
    with serving(web(size=1), tmp_path, arguments=lambda lb: ["serve", *words], environment=environment):
        for theirs in (runtime, None):
            assert client("status", *words, cwd=tmp_path, XDG_RUNTIME_DIR=theirs).returncode == 0
    lost = client("status", *words, cwd=tmp_path, XDG_RUNTIME_DIR=runtime)
    assert lost.returncode == 3
    assert f"{runtime}/lbproxy/lb-" in lost.stderr
    assert "/run/lbproxy/lb-" in lost.stderr
    shutil.rmtree(runtime)


def test_the_only_one_without_a_file_is_found_by_plain_commands(tmp_path: Path) -> None:
    runtime = tempfile.mkdtemp(prefix="lb-")
    environment = {"XDG_RUNTIME_DIR": runtime}
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    def arguments(lb: Serving) -> list[str]:
        return ["serve", "-n", "1", "-l", f"127.0.0.1:{lb.port}", "--", "sh", "-c", _brittle()]

    with serving("", tmp_path / "one", arguments=arguments, environment=environment) as lb:
        # Another test may run an lbproxy in /run/lbproxy for a moment: then there are several, and none is chosen.
        lb.wait_until(lambda: client("status", cwd=elsewhere, XDG_RUNTIME_DIR=runtime).returncode == 0)
        lb.wait_until(lambda: client("reload", cwd=elsewhere, XDG_RUNTIME_DIR=runtime).returncode == 0)
        lb.wait_log('"reload.finished"')
        with serving("", tmp_path / "two", arguments=arguments, environment=environment):
            several = client("status", cwd=elsewhere, XDG_RUNTIME_DIR=runtime)
            assert several.returncode == 3
            assert several.stderr.startswith("lbproxy: several run here, name one with -c or --control: ")
        named = client("status", "-c", "other.toml", cwd=elsewhere, XDG_RUNTIME_DIR=runtime)
        assert named.returncode == 3, "a file that is named is meant"
        lb.wait_until(lambda: client("stop", cwd=elsewhere, XDG_RUNTIME_DIR=runtime).returncode == 0)
        lb.wait_until(lb.exited)
    shutil.rmtree(runtime)


def _brittle() -> str:
    from support import apps

    return "exec " + apps.BRITTLE


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that another user may enter, as pytest's are not."""
    directory = Path(tempfile.mkdtemp(prefix="lb-", dir="/tmp"))
    directory.chmod(0o777)
    yield directory
    shutil.rmtree(directory)


@needs_root
def test_a_user_without_a_runtime_directory_can_start_and_be_found(open_directory: Path) -> None:
    become = ["setpriv", "--reuid=4242", "--regid=4242", "--clear-groups"]
    environment = {"XDG_RUNTIME_DIR": "", "HOME": "/nonexistent"}
    with serving(
        web(size=1),
        open_directory,
        arguments=lambda lb: ["serve", "-c", str(lb.config)],
        environment=environment,
        prefix=become,
    ) as lb:
        assert lb.control.startswith("/tmp/lbproxy-4242/lb-")
        assert oct(os.stat("/tmp/lbproxy-4242").st_mode & 0o777) == "0o700"
        words = [*become, *LBPROXY, "status", "-c", str(lb.config)]
        env = {**os.environ, "XDG_RUNTIME_DIR": "/run/user/4242"}
        assert subprocess.run(words, env=env, capture_output=True, check=False).returncode == 0
        os.chmod("/tmp/lbproxy-4242", 0o755)
        refused = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
        assert refused.returncode == 1
        assert "/tmp/lbproxy-4242: it is open to other users" in refused.stderr
        os.chmod("/tmp/lbproxy-4242", 0o700)


@needs_root
def test_a_user_that_cannot_be_become_is_a_mistake_of_the_file(open_directory: Path) -> None:
    config = open_directory / "lb.toml"
    config.write_text('[[listener]]\naddress = ":9999"\n[pool.web]\ncommand = "true {port}"\nuser = "root"\n')
    become = ["setpriv", "--reuid=4242", "--regid=4242", "--clear-groups"]
    for command in ("check", "serve"):
        done = subprocess.run(
            [*become, *LBPROXY, command, "-c", str(config)], capture_output=True, text=True, check=False, timeout=30
        )
        assert done.returncode == 78
        assert "pool.web.user: cannot run as 'root'" in done.stdout + done.stderr
