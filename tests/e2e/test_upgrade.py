"""`lbproxy upgrade`: the same pid, the same backends, nobody refused; and programs that must not take over."""

import json
import os
import signal
import socket
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from support.activation import activating, tcp
from support.installed import Installed
from support.load import load
from support.notify import listening
from support.serve import Serving, serving

import lbproxy

CONFIG = """
[proxy]
workers = 2
pid_file = "lb.pid"

[log]
access_path = "access.log"
audit_path = "audit.log"

[admin]
address = "127.0.0.1:$port2"
token = "env:ADMIN_SECRET"

[[listener]]
address = "127.0.0.1:$port"
pool = "web"

[[listener]]
address = "fd:passed"
pool = "other"

[[listener]]
address = "unix:public.sock"
pool = "web"

[pool.web]
command = "$origin --port {port}"
size = 2
[pool.web.health]
path = "/"
[pool.web.reload]
min_ready = "0s"
[pool.web.restart]
backoff = { first = "100ms", max = "200ms" }

[pool.other]
command = "$brittle"
bind = "unix"
[pool.other.health]
path = "/"

[pool.inherited]
command = "$brittle"
bind = "fd"
[pool.inherited.health]
path = "/"
"""


def facts(lb: Serving) -> dict[str, Any]:
    """What an upgrade must not change."""
    status = lb.status()
    pools = {
        name: [pool["generation"], pool["size"], pool["paused"], pool["drained"], pool["differs_from_file"]]
        + [[one["backend"], one["pid"], one["address"], one["state"], one["restarts"]] for one in pool["backends"]]
        for name, pool in status["pools"].items()
    }
    listeners = [[listener[key] for key in ("name", "address", "mode", "pool")] for listener in status["listeners"]]
    return {"pid": status["pid"], "pools": pools, "config": status["config"], "listeners": listeners}


def counters(lb: Serving) -> dict[str, float]:
    lines = lb.api("GET", "/metrics").body.decode().splitlines()
    named = [line.rpartition(" ") for line in lines if not line.startswith("#")]
    return {name: float(value) for name, _, value in named if "_total" in name or "_count" in name}


def upgrade(lb: Serving, *options: str) -> dict[str, Any]:
    """The last event."""
    done = lb.cli("upgrade", "--json", *options)
    last: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert last["event"] == "upgrade.done", done
    assert last["exit_code"] == done.returncode
    return last


def answer(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return sock.recv(65536)


def test_everything_is_handed_on_and_nobody_notices(tmp_path: Path) -> None:
    installed = Installed(tmp_path / "installed")
    with ExitStack() as stack:
        passed = tcp(reuse_port=True)
        port = passed.getsockname()[1]
        prefix = stack.enter_context(activating(tmp_path, passed=passed))
        notify = stack.enter_context(listening(tmp_path))
        secret = {"ADMIN_SECRET": "a-secret-of-32-visible-characters", "NOTIFY_SOCKET": notify.where}
        lb = stack.enter_context(
            serving(CONFIG, tmp_path / "run", environment={**installed.environment, **secret}, prefix=prefix)
        )
        lb.wait_until(lambda: "READY" in notify.states())
        assert lb.cli("scale", "web=3").returncode == 0
        assert lb.cli("pause", "other").returncode == 0
        assert lb.cli("drain", "web.2", "--force").returncode == 0
        before, history = facts(lb), lb.cli("history", "--json").stdout
        workers = {worker["pid"] for worker in lb.status()["workers"]}
        uptime_s = lb.status()["uptime_s"]
        descriptors = len(os.listdir(f"/proc/{lb.pid}/fd"))
        with load(lb.port) as clients, load(lb.port, keep_alive=False) as others:
            clients.wait_more(20)
            counted = counters(lb)
            for number, version in enumerate(("9.0", lbproxy.__version__, "9.1"), 1):
                installed.become(version)
                assert f"lbproxy {lbproxy.__version__}" in lb.cli("version").stdout
                done = upgrade(lb)
                assert (done["result"], done["upgrade"], done["version"]) == ("ok", f"u{number}", version)
                clients.wait_more(20)
                others.wait_more(20)
            assert (clients.lost, others.lost) == ([], [])
        assert facts(lb) == before
        lb.wait_until(lambda: len(os.listdir(f"/proc/{lb.pid}/fd")) <= descriptors)
        status = lb.status()
        assert status["uptime_s"] > uptime_s
        assert len(status["workers"]) == 2
        assert not workers & {worker["pid"] for worker in status["workers"]}
        after = counters(lb)
        assert {name: (value, after.get(name)) for name, value in counted.items() if after.get(name, 0) < value} == {}
        requests = 'lbproxy_http_requests_total{code="200",method="GET",pool="web"}'
        assert after[requests] >= counted[requests] + 120, "what was served meanwhile counts"
        assert lb.cli("history", "--json").stdout == history
        events = lb.cli("events", "--json", "--since", "10m").stdout
        assert events.count('"upgrade.started"') == 3, "what happened before the exec is still known"
        assert '"backend.ready"' in events
        assert notify.states() == ["READY"], "the service manager notices nothing"

        # It goes on as any other.
        assert lb.cli("unpause", "other").returncode == 0
        assert answer(port).startswith(b"HTTP/1.1 200")
        assert lb.cli("undrain", "web.2").returncode == 0
        victim = next(one for one in lb.backends() if one["id"] == "web.1")
        os.kill(victim["pid"], signal.SIGKILL)
        lb.wait_until(lambda: all(one["state"] == "ready" and one["pid"] != victim["pid"] for one in lb.backends()))
        os.kill(lb.status()["workers"][0]["pid"], signal.SIGKILL)
        assert lb.cli("reload").returncode == 0
        assert {one["generation"] for one in lb.backends()} == {before["pools"]["web"][0] + 1}
        admin = lb.ports["port2"]
        assert f"{lb.pid}\n" == (tmp_path / "run/lb.pid").read_text()
        assert '"command":"upgrade"' in (tmp_path / "run/audit.log").read_text()
        assert answer(admin).startswith(b"HTTP/1.1 401")
    assert not (tmp_path / "run/lb.pid").exists()


SMALL = """
[proxy]
workers = 1

[[listener]]
address = "127.0.0.1:$port"

[pool.web]
command = "$origin --port {port}"
[pool.web.health]
path = "/"
"""


def test_a_program_that_is_broken_does_not_take_over(tmp_path: Path) -> None:
    installed = Installed(tmp_path / "installed")
    with serving(SMALL, tmp_path / "run", environment=installed.environment) as lb:
        before, workers = facts(lb), lb.status()["workers"][0]["pid"]

        def stays(done: dict[str, Any], why: str, said: str) -> None:
            assert (done["result"], done["exit_code"]) == ("failed", 5)
            assert why in done["why"]
            assert said in "\n".join(done["output"]), done
            assert facts(lb) == before
            assert lb.status()["workers"][0]["pid"] == workers
            assert lb.get("/").status == 200

        (installed.package / "policy/retry.py").write_text("raise ImportError('of the new version')\n")
        stays(upgrade(lb), "exit code 1", "ImportError: of the new version")
        installed.restore("policy/retry.py")

        (installed.package / "__init__.py").write_text("import time\nprint('I hang', flush=True)\ntime.sleep(60)\n")
        stays(upgrade(lb, "--timeout", "3s"), "not over within 3s", "I hang")

        asked = subprocess.Popen(lb.command("upgrade", "--json"), stdout=subprocess.PIPE, text=True)
        lb.wait_until(lambda: [pid for pid in lb.pids_of(" serve") if pid != lb.pid])
        busy = lb.cli("reload")
        assert (busy.returncode, busy.stderr) == (8, "lbproxy: an upgrade of lbproxy is running (u3)\n")
        assert lb.cli("upgrade").returncode == 8
        (trial,) = [pid for pid in lb.pids_of(" serve") if pid != lb.pid]
        os.kill(trial, signal.SIGKILL)
        stays(json.loads(asked.communicate(timeout=30)[0].splitlines()[-1]), "SIGKILL", "I hang")
        installed.restore("__init__.py")

        installed.replace("control/handed_on.py", "VERSION = 1", "VERSION = 2")
        stays(upgrade(lb), "exit code 1", "hands on its state in version 1, and this one reads version 2")
        installed.restore("control/handed_on.py")

        installed.replace("worker/main.py", "    worker = Worker(", "    return 3\n    worker = Worker(")
        stays(upgrade(lb), "exit code 1", "a worker of this version does not apply the table")
        installed.restore("worker/main.py")

        valid = lb.config.read_text()
        lb.config.write_text(valid + "\nwokers = 4\n")
        stays(upgrade(lb), "exit code 78", "wokers")
        lb.config.write_text(valid)

        # A worker that is replaced now is of the version that was started.
        (installed.package / "worker/main.py").write_text("raise ImportError('of the new version')\n")
        os.kill(workers, signal.SIGKILL)
        lb.wait_until(lambda: [one["state"] for one in lb.status()["workers"] if one["pid"] != workers] == ["serving"])
        installed.restore("worker/main.py")
        assert lb.cli("reload", "--no-wait").returncode == 0
        assert lb.cli("upgrade").returncode == 8
        lb.wait_log('"reload.finished"')


def test_signals_wait_over_the_exec_and_a_deleted_working_directory_is_not_missed(tmp_path: Path) -> None:
    (tmp_path / "release").mkdir()
    with serving(SMALL, tmp_path, prefix=("sh", "-c", 'cd release && exec "$@"', "sh")) as lb:
        (tmp_path / "release").rmdir()
        for number in (1, 2):
            asked = subprocess.Popen(lb.command("upgrade"), stdout=subprocess.DEVNULL)
            lb.wait_until(lambda number=number: lb.log().count('"upgrade.proved"') == number)
            if number == 2:
                lb.status()  # waits for the program behind the exec
            lb.signal(signal.SIGUSR2)
            assert asked.wait(30) == 0
            lb.wait_until(lambda number=number: lb.log().count('"reload.finished"') == number)
            assert [one["generation"] for one in lb.backends()] == [number + 1]
        asked = subprocess.Popen(lb.command("upgrade"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        lb.wait_until(lambda: lb.log().count('"upgrade.proved"') == 3)
        assert lb.stop() == 0, "TERM waits, too"
        assert asked.wait(30) in (0, 5), "done, or not begun: TERM comes behind the exec or before it"


def test_a_program_that_breaks_behind_the_exec_is_a_crash_of_control(tmp_path: Path) -> None:
    installed = Installed(tmp_path / "installed")
    with serving(SMALL, tmp_path / "run", environment=installed.environment) as lb:
        taking_over = "        context = self.context\n        context.loaded_at"
        mistake = "        raise RuntimeError('a mistake of the new version')\n"
        installed.replace("control/succession.py", taking_over, mistake + taking_over)
        done = lb.cli("upgrade")
        assert done.returncode == 1
        assert "lbproxy ended while it replaced itself" in done.stderr
        lb.wait_until(lb.exited)
        lb.wait_log("a mistake of the new version")
        lb.wait_nothing_left()
        installed.restore("control/succession.py")
        lb.start(installed.environment)  # the service manager starts it anew, from what is installed
        lb.wait_ready()

        asked = subprocess.Popen(lb.command("upgrade"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        lb.wait_until(lambda: lb.log().count('"upgrade.proved"') == 2)
        lb.signal(signal.SIGKILL)  # about to execute, or in the middle of taking over
        asked.communicate(timeout=30)
        assert asked.returncode == 1
        lb.wait_until(lb.exited)
        lb.wait_nothing_left()
        lb.start(installed.environment)
        lb.wait_ready()
        assert lb.get("/").status == 200
