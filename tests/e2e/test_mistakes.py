"""Configurations with mistakes: all of them at once, and a running lbproxy keeps what it has."""

import signal
import subprocess
from pathlib import Path

from support.load import load
from support.serve import LBPROXY, Serving, serving
from support.web import web

# One of each kind: an unknown key, a value that is none of the known ones, a bare number, a pool that is not there.
MISTAKES = """
[proxy]
wokers = 4

[[listener]]
address = "127.0.0.1:$port"
pool = "wbe"

[pool.web]
command = "$brittle"
balance = "least_con"

[pool.web.health]
interval = 5
"""


def assert_the_four_are_told(lb: Serving, report: str) -> None:
    name = str(lb.config)
    assert f"{name}:3:1: error: unknown key 'wokers' in [proxy] (did you mean 'workers'?)" in report
    assert f"{name}:7:1: error: " in report
    assert "'wbe' (did you mean 'web'?)" in report
    assert f"{name}:11:1: error: pool.web.balance: expected least_conn, round_robin, random_two or hash" in report
    assert f"{name}:14:1: error: " in report
    assert '"5s"' in report
    assert '    11 | balance = "least_con"' in report
    assert "4 errors" in report


def test_a_reload_with_mistakes_tells_them_all_and_changes_nothing(tmp_path: Path) -> None:
    """By a command and by a signal; without a readable file; with a port that is taken."""
    (tmp_path / "my.env").write_text("A=1\n")
    good = web('env_file = "my.env"')
    with serving(good, tmp_path) as lb, load(lb.port) as clients, lb.connect() as taken:
        before = [one["pid"] for one in lb.backends()]
        lb.write_config(MISTAKES)
        done = lb.cli("reload")
        assert done.returncode == 78
        assert_the_four_are_told(lb, done.stderr)
        assert done.stdout == ""
        clients.wait_more(20)
        assert clients.lost == []
        assert [one["pid"] for one in lb.backends()] == before
        assert lb.cli("status", "-q").returncode == 0

        rejected = lb.log().count("config.rejected")
        lb.signal(signal.SIGUSR2)
        lb.wait_until(lambda: lb.log().count("config.rejected") == rejected + 1)
        lb.wait_log("did you mean 'workers'?")
        assert [one["pid"] for one in lb.backends()] == before
        assert lb.cli("status", "-q").returncode == 0

        lb.config.write_text("[proxy\nworkers = ")
        done = lb.cli("reload")
        assert done.returncode == 78
        assert f"{lb.config}:1:" in done.stderr
        lb.config.unlink()
        gone = lb.cli("reload")
        assert gone.returncode == 78
        assert "cannot be read" in gone.stderr

        lb.write_config(good)
        (tmp_path / "my.env").unlink()
        done = lb.cli("reload")
        assert done.returncode == 78
        assert "my.env" in done.stderr
        assert lb.get("/env?name=A").body == b"1"
        assert lb.get("/whoami").json()["generation"] == "1"

        taken_port = taken.getsockname()[1]
        lb.write_config(web(more=f'[[listener]]\naddress = "127.0.0.1:{taken_port}"\npool = "web"\n'))
        done = lb.cli("reload")
        assert done.returncode == 1
        assert f"cannot listen on 127.0.0.1:{taken_port}: address already in use" in done.stdout + done.stderr
        assert "Traceback" not in done.stderr + lb.log()
        assert [one["pid"] for one in lb.backends()] == before

        lb.write_config(web())
        assert lb.cli("reload").returncode == 0
        assert clients.lost == []


def test_client_commands_find_their_lbproxy_although_the_file_has_mistakes(tmp_path: Path) -> None:
    """Where it listens is what the configuration says, found even while there are mistakes elsewhere in it."""
    with serving(web(proxy='control = "$dir/c"'), tmp_path, arguments=lambda lb: ["-c", str(lb.config), "serve"]) as lb:
        lb.write_config(MISTAKES.replace("[proxy]\n", '[proxy]\ncontrol = "$dir/c"\n'))
        found = subprocess.run([*LBPROXY, "-c", str(lb.config), "status", "-q"], check=False, timeout=20)
        assert found.returncode == 0


def test_serve_and_check_end_with_78(tmp_path: Path) -> None:
    with serving(MISTAKES, tmp_path, wait=False) as lb:
        assert lb.process is not None
        assert lb.process.wait(20) == 78
        lb.wait_until(lambda: "4 errors" in lb.log())
        assert_the_four_are_told(lb, lb.log())
        checked = lb.cli("check")
        assert checked.returncode == 78
        assert_the_four_are_told(lb, checked.stdout + checked.stderr)
        lb.write_config(web())
        assert lb.cli("check").returncode == 0


def test_what_is_not_built_yet_is_refused_with_its_line(tmp_path: Path) -> None:
    config = web("sticky = { cluster = true }", more='[cluster]\nname = "prod"\n')
    with serving(config, tmp_path, wait=False) as lb:
        assert lb.process is not None
        assert lb.process.wait(20) == 78
        lb.wait_until(lambda: "2 errors" in lb.log())
        lb.wait_until(lambda: lb.log().count("not supported yet") == 2)
