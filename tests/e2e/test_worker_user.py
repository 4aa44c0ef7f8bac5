"""Started as root: workers of another user, a log that they could not open, and secrets that no child can find."""

import os
import pwd
import signal
from pathlib import Path

import pytest
from support.serve import serving
from support.web import web

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root has workers of another user")

TOKEN = "a-token-that-nobody-else-may-find"
CONFIG = web(
    size=1,
    workers=2,
    proxy='user = "nobody"\nstate_dir = "state"',
    pool='bind = "unix"',
    command="$brittle",
    reload='min_ready = "0s"\nafter = ["sh", "-c", "env > $dir/hook"]',
    more="""
[log]
access_path = "log/access.log"

[admin]
address = "127.0.0.1:$port2"
token = "env:LB_TOKEN"
""",
)


def test_workers_have_no_rights_and_do_their_work(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir(mode=0o700)
    log = tmp_path / "log" / "access.log"
    with serving(CONFIG, tmp_path, environment={"LB_TOKEN": TOKEN}) as lb:
        assert lb.get("/").status == 200  # a backend of root, on a unix socket
        lb.wait_until(lambda: log.read_text().count("\n") == 1)
        log.rename(tmp_path / "log" / "access.log.1")
        lb.signal(signal.SIGUSR1)
        lb.wait_until(log.exists)  # control has opened it; the workers go on with it a moment later
        lb.wait_until(lambda: lb.get("/").status == 200 and log.read_text())
        done = lb.cli("reload")
        assert done.returncode == 0, done.stdout + done.stderr
        workers = [worker["pid"] for worker in lb.status()["workers"]]
        nobody = pwd.getpwnam("nobody")
        for pid in workers:
            status = Path(f"/proc/{pid}/status").read_text().split("\n")
            facts = dict(line.split(":\t", 1) for line in status if ":\t" in line)
            assert facts["Uid"].split() == [str(nobody.pw_uid)] * 4
            assert facts["Gid"].split() == [str(nobody.pw_gid)] * 4
            assert facts["Groups"].split() == []
            assert {facts[f"Cap{kind}"] for kind in ("Prm", "Eff", "Bnd")} == {"0" * 16}
        for pid in (lb.pid, *workers):
            assert os.stat(f"/proc/{pid}/environ").st_uid == 0
        found = [lb.pid, *(process.pid for process in lb.processes())]
        assert len(found) >= 5  # control, guard, two workers, a backend
        for pid in found:
            raw = Path(f"/proc/{pid}/environ").read_bytes() + Path(f"/proc/{pid}/cmdline").read_bytes()
            assert TOKEN.encode() not in raw, pid
        assert "LBPROXY_RESULT=ok" in (tmp_path / "hook").read_text()
        assert TOKEN not in (tmp_path / "hook").read_text()
        told = "".join(lb.cli(*words).stdout for words in (["status", "--json"], ["check", "--effective"], ["events"]))
        assert TOKEN not in told
        assert TOKEN not in lb.log()
        assert not [path for path in (tmp_path / "state").rglob("*") if path.is_file() and TOKEN in path.read_text()]


def test_a_hung_worker_of_another_user_ends_with_control(tmp_path: Path) -> None:
    with serving(web(size=1, proxy='user = "nobody"'), tmp_path) as lb:
        (worker,) = [worker["pid"] for worker in lb.status()["workers"]]
        os.kill(worker, signal.SIGSTOP)
        os.kill(lb.pid, signal.SIGKILL)
        lb.wait_until(lambda: not Path(f"/proc/{worker}").exists() or "Z" in Path(f"/proc/{worker}/stat").read_text())
        lb.wait_nothing_left()
