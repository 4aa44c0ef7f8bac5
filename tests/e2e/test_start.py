"""How `serve` starts, and what it says when it cannot: one clear line, a code, and nothing left behind."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from support.serve import LBPROXY, Serving, serving
from support.web import web


def said_and_code(lb: Serving) -> tuple[list[str], int]:
    """The lines that are no events, and the exit code."""
    assert lb.process is not None
    code = lb.process.wait(20)
    lb.wait_nothing_left()
    lb.wait_until(lambda: "lbproxy:" in lb.log(), 3)
    return [line for line in lb.log().splitlines() if not line.startswith("{")], code


@pytest.mark.parametrize(
    ("address", "shared"), [("127.0.0.1:$port2", False), (":$port2", False), ("127.0.0.1:$port2", True)]
)
def test_a_port_in_use_is_one_clear_line(tmp_path: Path, address: str, shared: bool) -> None:
    """Also when the other program would share it."""
    with socket.socket() as other:
        if shared:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        config = web().replace("127.0.0.1:$port", address.replace("$port2", str(port)))
        with serving(config, tmp_path, wait=False) as lb:
            lines, code = said_and_code(lb)
            assert code == 1
            assert len(lines) == 1, lines
            assert lines[0].startswith("lbproxy: cannot listen on ")
            assert f":{port}: address already in use" in lines[0]
            assert not os.path.exists(lb.control)


def _has_setpriv() -> bool:
    return os.geteuid() == 0 and shutil.which("setpriv") is not None


@pytest.mark.skipif(not _has_setpriv(), reason="root has to become somebody else")
def test_a_privileged_port_is_one_clear_line() -> None:
    nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    python = sys.executable if _may_run(nobody, sys.executable) else None
    if python is None:
        pytest.skip("no interpreter with lbproxy that another user may execute")
    done = subprocess.run(
        [*nobody, *LBPROXY, "--control", f"/tmp/lb-{os.getpid()}/c", "serve", "-l", "127.0.0.1:81", "--", "true"],
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "lbproxy: cannot listen on 127.0.0.1:81: permission denied (ports below 1024 need root or CAP_NET_BIND_SERVICE)"
    ]


def _may_run(nobody: list[str], python: str) -> bool:
    return (
        subprocess.run([*nobody, python, "-c", "import lbproxy.cli.main"], capture_output=True, check=False).returncode
        == 0
    )


def test_an_address_that_this_machine_does_not_have_is_one_clear_line(tmp_path: Path) -> None:
    with serving(web().replace("127.0.0.1:$port", "192.0.2.1:$port"), tmp_path, wait=False) as lb:
        lines, code = said_and_code(lb)
        assert code == 1
        assert len(lines) == 1, lines
        assert "192.0.2.1" in lines[0]


def test_a_second_serve_on_the_same_file_is_told_who_holds_it(tmp_path: Path) -> None:
    with serving(web(), tmp_path) as lb:
        second = lb.cli("serve", timeout_s=20)
        assert second.returncode == 1
        (line,) = second.stderr.splitlines()
        assert str(lb.pid) in line
        assert lb.get("/whoami").status == 200
        assert lb.cli("status", "-q").returncode == 0  # its socket is still there
        assert os.stat(lb.control).st_mode & 0o777 == 0o600


def test_a_file_in_the_way_of_the_control_socket_is_left_alone(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("do not remove")
    with serving(web(proxy='control = "precious"'), tmp_path, wait=False, arguments=plain) as lb:
        lines, code = said_and_code(lb)
        assert code == 1
        assert "not a socket" in lines[0]
        assert precious.read_text() == "do not remove"


def plain(lb: Serving) -> list[str]:
    return ["-c", str(lb.config), "serve"]


def test_not_running_is_exit_code_3_for_every_client_command(tmp_path: Path) -> None:
    control = str(tmp_path / "nobody")
    for command in (["status"], ["reload"], ["stop"], ["logs"]):
        done = subprocess.run(
            [*LBPROXY, "--control", control, *command], capture_output=True, text=True, check=False, timeout=20
        )
        assert done.returncode == 3
        assert "not running" in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_the_form_without_a_file_serves_and_is_reloaded(tmp_path: Path) -> None:
    brittle = [sys.executable, *_brittle()]

    def arguments(lb: Serving) -> list[str]:
        return ["serve", "-n", "2", "-l", f"127.0.0.1:{lb.port}", "--", *brittle]

    with (
        tempfile.TemporaryDirectory(prefix="lb-") as runtime,
        serving("", tmp_path, arguments=arguments, environment={"XDG_RUNTIME_DIR": runtime}) as lb,
    ):
        lb.config.unlink()
        assert lb.get("/whoami").json()["generation"] == "1"
        assert len(lb.backends()) == 2
        assert lb.cli("reload").returncode == 0
        assert lb.get("/whoami").json()["generation"] == "2"
        assert Path(lb.control).parent == Path(runtime) / "lbproxy"


def _brittle() -> list[str]:
    from support.apps import BRITTLE

    return BRITTLE.split()[1:]


@pytest.mark.parametrize("arguments", [["-n", "2"], ["-l", ":1"], ["--", "true"], ["-n", "0", "-l", ":1", "--", "x"]])
def test_half_a_form_without_a_file_is_a_usage_error(arguments: list[str]) -> None:
    done = subprocess.run([*LBPROXY, "serve", *arguments], capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode == 2


def test_it_stays_up_when_nothing_becomes_ready(tmp_path: Path) -> None:
    restart = 'backoff = { first = "20ms", max = "20ms" }\ngive_up = { crashes = 2, within = "60s" }'
    with serving(web('env = { BREAK = "import" }', restart=restart), tmp_path, wait=False) as lb:
        lb.wait_until(lambda: lb.log().count('"backend.failed"') == 2)
        assert not lb.exited()
        status = lb.cli("status")
        assert status.returncode == 4
        assert "0/2 ready" in status.stdout
        assert "failed" in status.stdout
        lb.write_config(web())
        assert lb.cli("reload").returncode == 0
        assert lb.cli("status", "-q").returncode == 0


def test_a_reload_that_comes_while_it_starts_does_not_kill_it(tmp_path: Path) -> None:
    with serving(web(size=1), tmp_path, wait=False) as lb:
        lb.wait_until(lambda: lb.exited() or os.path.exists(lb.control))  # the first thing that it makes
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
            lb.signal(number)
        lb.wait_log('"serve.started"')
        lb.wait_ready()
        lb.signal(signal.SIGUSR2)
        lb.wait_log('"reload.finished"')
        lb.wait_ready()
        assert int(lb.get("/whoami").json()["generation"]) >= 2


def test_backends_do_not_see_descriptors_or_limits_of_lbproxy(tmp_path: Path) -> None:
    with serving(web(size=1), tmp_path) as lb:
        pid = lb.backends()[0]["pid"]
        open_ones = {os.readlink(f"/proc/{pid}/fd/{name}").split(":")[0] for name in os.listdir(f"/proc/{pid}/fd")}
        assert not {name for name in open_ones if "eventpoll" in name or "memfd" in name}
        ours = _nofile(os.getpid())
        assert _nofile(pid) == ours
        assert os.getpgid(pid) == pid, "a process group of its own"


def _nofile(pid: int) -> list[str]:
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    return next(line.split()[3:5] for line in lines if line.startswith("Max open files"))
