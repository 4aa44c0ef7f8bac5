"""keepalived.conf, logrotate and user_data.tf: the files around lbproxy on a machine of its own.

keepalived reads its file, logrotate really rotates the log of a running lbproxy, python-hcl2 parses the Terraform file
and its parts are read. Not tried here: an address that moves, a cloud, cloud-init.
"""

import base64
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import hcl2
import pytest
import yaml
from support.serve import LBPROXY, serving
from support.web import web

from lbproxy.config.load import load

CONFIGS = Path(__file__).parents[2] / "configs"
INSTALLED = "/opt/lbproxy/bin/lbproxy"


# keepalived


def keepalived() -> str:
    return (CONFIGS / "keepalived.conf").read_text()


@pytest.mark.peer("keepalived")
def test_keepalived_has_nothing_to_say_about_its_file(tmp_path: Path) -> None:
    others = [
        name for name in sorted(os.listdir("/sys/class/net")) if (Path("/sys/class/net") / name / "device").exists()
    ]
    if not others:
        pytest.skip("keepalived wants an interface besides the loopback's")
    text = keepalived().replace(INSTALLED, "/bin/true").replace("user lbproxy", "user root").replace("eth0", others[0])
    path = tmp_path / "keepalived.conf"
    path.write_text(text)
    done = subprocess.run(
        ["keepalived", "-t", "-f", str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_keepalived_asks_a_command_that_tells_well_from_degraded_from_gone(tmp_path: Path) -> None:
    (script,) = re.findall(r'script "(.*)"', keepalived())
    program, *words = script.split()
    assert program == INSTALLED

    def ask() -> int:
        command = [*LBPROXY, *(word.replace("/etc/lbproxy/lb.toml", str(lb.config)) for word in words)]
        return subprocess.run(
            command, env={**os.environ, "LBPROXY_CONTROL": lb.control}, capture_output=True, timeout=60, check=False
        ).returncode

    with serving(web(size=1, restart='backoff = { first = "20s", max = "20s" }\nstop_timeout = "2s"'), tmp_path) as lb:
        assert ask() == 0
        os.kill(lb.backends()[0]["pid"], 9)
        lb.wait_until(lambda: ask() == 4)
        lb.stop()
        assert ask() == 3


# logrotate


@pytest.mark.peer("logrotate")
@pytest.mark.skipif(os.geteuid() != 0, reason="logrotate becomes the owner of the logs")
def test_logrotate_moves_the_log_away_and_no_line_is_lost(tmp_path: Path) -> None:
    logs = tmp_path / "log"
    logs.mkdir(mode=0o750)
    config = web(
        proxy=f'pid_file = "{tmp_path}/lb.pid"', more=f'[log]\naccess_path = "{logs}/access.log"', size=1, workers=2
    )
    text = (CONFIGS / "logrotate").read_text()
    (without_systemd,) = re.findall(r"# Without systemd: (kill .*?)  ", text)
    text = text.replace("/var/log/lbproxy", str(logs)).replace("lbproxy lbproxy", "root root")
    text = re.sub(r"systemctl kill .*", without_systemd.replace("/run/lbproxy/lb.pid", f"{tmp_path}/lb.pid"), text)
    (tmp_path / "logrotate").write_text(text)
    (tmp_path / "logrotate").chmod(0o644)
    rotate = ["logrotate", "-s", str(tmp_path / "state"), "-f", str(tmp_path / "logrotate")]

    with serving(config, tmp_path) as lb:
        assert lb.get("/before").status < 500
        lb.wait_until(lambda: "/before" in (logs / "access.log").read_text())
        done = subprocess.run(rotate, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout + done.stderr) == (0, "")
        asked = 0

        def is_in_the_new_file() -> bool:
            nonlocal asked
            asked += 1
            assert lb.get(f"/after-{asked}").status < 500
            return "/after-" in (logs / "access.log").read_text()

        lb.wait_until(is_in_the_new_file)

        def all_are_there() -> bool:
            lines = "".join(path.read_text() for path in logs.iterdir())
            return all(f"/after-{number} " in lines for number in range(1, asked + 1))

        lb.wait_until(all_are_there)
        (old,) = [path for path in logs.iterdir() if path.name != "access.log"]
        assert "/before" in old.read_text()
        assert (logs / "access.log").stat().st_mode & 0o777 == 0o640


# Terraform


def terraform() -> dict[str, Any]:
    with open(CONFIGS / "user_data.tf") as file:
        return hcl2.load(file)


def heredoc(written: str) -> str:
    """The text of `<<-EOT … EOT` without its margin."""
    lines = written.strip('"').split("\n")[1:-1]
    margin = min(len(line) - len(line.lstrip()) for line in lines if line)
    return "\n".join(line[margin:] for line in lines) + "\n"


def evaluated(text: str, lb_toml: str) -> str:
    """With the values of its `${…}`; a function that is not known here stays, and no YAML begins with `$`."""
    unit = (CONFIGS / "lbproxy.service").read_bytes()
    text = text.replace("${base64encode(local.lb_toml)}", base64.b64encode(lb_toml.encode()).decode())
    text = text.replace('${filebase64("${path.module}/lbproxy.service")}', base64.b64encode(unit).decode())
    text = text.replace("${var.release_url}", "https://example.com/shop.tar.gz")
    assert "${" not in text
    return text


def test_the_machine_of_terraform_has_a_valid_configuration_and_the_unit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = terraform()
    (local,) = found["locals"]
    lb_toml = heredoc(local["lb_toml"])
    document = yaml.safe_load(evaluated(heredoc(local["user_data"]), lb_toml))
    files = {file["path"]: base64.b64decode(file["content"]).decode() for file in document["write_files"]}
    unit = files["/etc/systemd/system/lbproxy.service"]
    assert "Type=notify" in unit

    (tmp_path / "lb.toml").write_text(files["/etc/lbproxy/lb.toml"].replace("/srv/shop/current", str(tmp_path)))
    settings = load(str(tmp_path / "lb.toml"))
    assert settings.proxy.control.startswith("/run/lbproxy/"), "RuntimeDirectory= of the unit"
    (pool,) = settings.pools
    assert pool.directory == str(tmp_path)
    (user,) = document["users"]
    assert f"User={user['name']}\n" in unit
    commands = [command if isinstance(command, str) else " ".join(command) for command in document["runcmd"]]
    (path,) = re.findall(r"^ExecStart=(\S+)", unit, re.MULTILINE)
    assert f"{path} check -c /etc/lbproxy/lb.toml" in commands, "a mistake shows in cloud-init's log"
    assert commands[-1] == "systemctl enable --now lbproxy"
    names = {next(iter(variable)).strip('"') for variable in found["variable"]}
    used = set(re.findall(r"\bvar\.(\w+)", (CONFIGS / "user_data.tf").read_text()))
    assert used == names
    assert sys.version_info >= (3, 11), "Debian 12 has it"
