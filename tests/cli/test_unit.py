import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lbproxy.cli import unit


def test_the_unit_names_this_lbproxy_and_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unit, "own_command", lambda: ["/opt/my lb/lbproxy"])
    text = unit.unit("/srv/a%b/lb.toml", option=" -o x", stop_s=45.2)
    assert 'ExecStart="/opt/my lb/lbproxy" serve -c /srv/a%%b/lb.toml\n' in text
    assert 'ExecReload="/opt/my lb/lbproxy" reload -c /srv/a%%b/lb.toml --timeout 5m\n' in text
    for line in (
        "Type=notify",
        "KillMode=mixed",
        "RestartPreventExitStatus=78",
        "TimeoutStopSec=45s",
        "WatchdogSec=30s",
        "RuntimeDirectory=lbproxy",
        "StateDirectory=lbproxy",
    ):
        assert f"\n{line}\n" in text


@pytest.mark.parametrize("uid", [0, 12345])
def test_another_user_than_root_gets_no_rights_but_low_ports(uid: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    text = unit.unit("/srv/lb.toml", option="", stop_s=45)
    assert ("\nUser=12345\n" in text) == (uid != 0)
    assert ("CapabilityBoundingSet=CAP_NET_BIND_SERVICE" in text) == (uid != 0)


def test_this_lbproxy_is_a_program_or_a_module(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "lbproxy"
    program.touch(mode=0o755)
    monkeypatch.setattr(sys, "argv", [str(program)])
    assert unit.own_command() == [str(program)]
    monkeypatch.setattr(sys, "argv", ["-c"])
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert unit.own_command() == [str(program)]
    program.unlink()
    assert unit.own_command() == [str(tmp_path / "python"), "-m", "lbproxy.cli.main"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")
@pytest.mark.parametrize("uid", [0, 1])
def test_systemd_has_nothing_to_say_about_it(uid: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "lbproxy"
    program.touch(mode=0o755)
    monkeypatch.setattr(sys, "argv", [str(program)])
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    service = tmp_path / "lbproxy.service"
    service.write_text(unit.unit(str(tmp_path / "lb.toml"), option="", stop_s=45))
    done = subprocess.run(["systemd-analyze", "verify", str(service)], capture_output=True, text=True, timeout=60)
    ours = [line for line in (done.stdout + done.stderr).splitlines() if "lbproxy" in line]
    assert (done.returncode, ours) == (0, [])
