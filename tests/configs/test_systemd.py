"""lbproxy.service and lbproxy.socket, as far as a machine without a running systemd can try them.

`systemd-analyze verify` reads them; setpriv gives a real lbproxy the user, the capabilities and the privileges of the
unit. Not tried here: the file system's protection (ProtectSystem= and others), the directories, the restarts.
"""

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.serve import Serving, serving
from support.users import NOBODY, needs_root, open_directory
from support.web import web

from lbproxy.settings import HealthSettings, ProxySettings

CONFIGS = Path(__file__).parents[2] / "configs"
SERVICE, SOCKET = CONFIGS / "lbproxy.service", CONFIGS / "lbproxy.socket"
INSTALLED = "/opt/lbproxy/bin/lbproxy"
BOUNDING = "CapabilityBoundingSet"


def settings_of(path: Path, *, commented: bool = False) -> dict[str, str]:
    """KEY=VALUE of a unit; `commented`: those behind a "#" without a blank instead."""
    wanted = re.compile(r"^#(\w+)=(.*)$" if commented else r"^(\w+)=(.*)$", re.MULTILINE)
    return dict(wanted.findall(path.read_text()))


def seconds(span: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(s|min|m)", span).groups()
    return int(number) * (1 if unit == "s" else 60)


@pytest.mark.peer("systemd-analyze")
def test_systemd_has_nothing_to_say_about_the_units(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("lbproxy")
    for path in (SERVICE, SOCKET):
        (tmp_path / path.name).write_text(path.read_text().replace(INSTALLED, str(program)))
    units = [str(tmp_path / path.name) for path in (SERVICE, SOCKET)]
    command = ["systemd-analyze", "verify", "--man=no", *units]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    # Version 252 ends with 0 in spite of an unknown key.
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_times_of_the_unit_fit_those_of_lbproxy() -> None:
    unit = settings_of(SERVICE)
    reload_s = seconds(re.search(r"--timeout (\S+)", unit["ExecReload"])[1])
    assert reload_s < seconds(unit["TimeoutStartSec"])
    assert HealthSettings().start_timeout_s < seconds(unit["TimeoutStartSec"])
    assert seconds(unit["TimeoutStopSec"]) > ProxySettings.__dataclass_fields__["shutdown_timeout_s"].default
    assert unit["Type"] == "notify"
    assert unit["KillMode"] == "mixed"
    assert unit["RestartPreventExitStatus"] == "78"


def test_the_words_of_the_unit_are_commands_of_lbproxy(tmp_path: Path) -> None:
    unit = settings_of(SERVICE)
    (tmp_path / "lb.toml").write_text(web().replace("$port", "8080").replace("$brittle", "app"))
    for key, code in (("ExecStart", 78), ("ExecReload", 3)):
        words = unit[key].replace("/etc/lbproxy", str(tmp_path)).split()
        if key == "ExecStart":
            words[-1] = str(tmp_path / "none.toml")
        command = [sys.executable, "-m", "lbproxy.cli.main", *words[1:]]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == code, done.stderr


def privileges(unit: dict[str, str], *, user: int) -> list[str]:
    """A prefix that gives a program what systemd would."""

    def names(key: str) -> list[str]:
        return [name.removeprefix("CAP_").lower() for name in unit.get(key, "").split()]

    words = ["setpriv", "--clear-groups", f"--bounding-set=-all,{','.join('+' + name for name in names(BOUNDING))}"]
    if user:
        words += [f"--reuid={user}", f"--regid={user}"]
    if ambient := ",".join("+" + name for name in names("AmbientCapabilities")):
        words += [f"--inh-caps={ambient}", f"--ambient-caps={ambient}"]
    return [*words, "--no-new-privs"] if unit["NoNewPrivileges"] == "yes" else words


def low_port() -> int:
    for port in range(1023, 512, -1):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port below 1024")


@pytest.fixture
def run() -> Iterator[Path]:
    with open_directory() as directory:
        yield directory


@needs_root
@pytest.mark.peer("setpriv")
def test_as_its_user_lbproxy_has_a_low_port_and_no_other_privilege(run: Path) -> None:
    port = low_port()
    config = web().replace("127.0.0.1:$port", f"127.0.0.1:{port}")
    prefix = privileges(settings_of(SERVICE), user=NOBODY)

    def words(lb: Serving) -> list[str]:
        return ["-c", str(lb.config), "--control", f"{run}/control", "serve"]

    environment = {"HOME": "/", "PYTHONPYCACHEPREFIX": f"{run}/bytecode"}
    with serving(config, run, prefix=prefix, arguments=words, environment=environment) as lb:
        lb.ports["port"] = port
        assert lb.get("/").status == 200
        for pid in (lb.pid, *(backend["pid"] for backend in lb.backends()), lb.status()["workers"][0]["pid"]):
            status = dict(re.findall(r"^(\w+):\s+(.*)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE))
            assert status["Uid"].split()[0] == str(NOBODY)
            assert status["NoNewPrivs"] == "1"
            assert int(status["CapBnd"], 16) == 1 << 10, "CAP_NET_BIND_SERVICE alone"
        assert lb.cli("reload").returncode == 0


@needs_root
@pytest.mark.peer("setpriv")
def test_in_the_root_variant_a_pool_has_a_user_of_its_own(run: Path) -> None:
    unit = settings_of(SERVICE)
    unit.pop("AmbientCapabilities")
    unit |= settings_of(SERVICE, commented=True)
    assert unit["User"] == "root"
    config = web(f'user = "{NOBODY}:{NOBODY}"\nbind = "unix"', command="$python $dir/app.py {socket}")
    (run / "app.py").write_text(UNIX_APP)
    with serving(config, run, prefix=privileges(unit, user=0)) as lb:
        assert lb.get("/").body == f"{NOBODY}\n".encode()
        assert lb.cli("reload").returncode == 0


UNIX_APP = """
import os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen(100)
body = f"{os.getuid()}\\n"
while True:
    connection, _ = server.accept()
    with connection:
        connection.recv(65536)
        head = f"HTTP/1.1 200 OK\\r\\nContent-Length: {len(body)}\\r\\nConnection: close\\r\\n\\r\\n"
        connection.sendall((head + body).encode())
"""
