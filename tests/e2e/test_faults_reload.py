"""Reloads under adverse circumstances: asked for too often, control killed in each step, no worker, a broken deploy."""

import contextlib
import json
import os
import random
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import psutil
import pytest
from support.load import load
from support.serve import Serving, serving
from support.web import web

GONE_WITHIN_S = 8.0


def finished(lb: Serving) -> int:
    return lb.log().count('"reload.finished"')


# -- asked for too often


def test_ten_signals_in_a_second_give_one_reload_and_one_more(tmp_path: Path) -> None:
    with serving(web(reload='min_ready = "600ms"'), tmp_path) as lb, load(lb.port, clients=2) as clients:
        for _ in range(10):
            lb.signal(signal.SIGUSR2)
            lb.status()  # control has had a turn: the kernel does not make one signal of two
        assert finished(lb) == 0, "the first one runs all the time"
        lb.wait_until(lambda: finished(lb) == 2)
        assert lb.cli("reload", "--config-only").returncode == 0, "not busy: no third one is waiting"
        assert {one["generation"] for one in lb.backends()} == {3}
        assert clients.lost == []


# -- control is killed

STEPS = [  # the last event before the kill, and how its backends listen
    ("reload.started", "", "tcp"),
    ("backend.starting", "web.1@2", "unix"),
    ("backend.ready", "web.1@2", "tcp"),
    ("backend.proved", "web.1@2", "unix"),  # published, or just about to be
    ("backend.draining", "web.1@1", "tcp"),
    ("backend.drained", "web.1@1", "tcp"),  # it gets TERM
    ("backend.starting", "web.2@2", "unix"),
    ("reload.done", "", "tcp"),
]


def has(lb: Serving, event: str, backend: str) -> bool:
    lines = [json.loads(line) for line in lb.log().splitlines() if line.startswith("{")]
    return any(line["event"] == event and backend in ("", line.get("backend")) for line in lines)


@pytest.mark.parametrize(("event", "backend", "bind"), STEPS)
def test_control_killed_in_a_reload_leaves_no_orphan_and_starts_cleanly(
    tmp_path: Path, event: str, backend: str, bind: str
) -> None:
    proxy = 'pid_file = "lb.pid"'
    config = web(f'bind = "{bind}"', proxy=proxy).replace('"127.0.0.1:$port"', '"unix:public.sock"')
    with serving(config, tmp_path) as lb:
        asking = subprocess.Popen(lb.command("reload"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        lb.wait_until(lambda: has(lb, event, backend))
        os.kill(lb.pid, signal.SIGKILL)
        assert asking.wait(5) in (0, 1)
        lb.wait_nothing_left(GONE_WITHIN_S)
        for stale in (lb.control, tmp_path / "public.sock", tmp_path / "lb.pid"):
            assert os.path.exists(stale)
        lb.start({})
        lb.wait_ready()
        assert (tmp_path / "lb.pid").read_text() == f"{lb.pid}\n"
        served_last = {1, 2} if event == "reload.done" else {1}  # it may be killed before that is written down
        assert {one["generation"] for one in lb.backends()} <= served_last
        assert lb.stop() == 0
        for stale in (lb.control, tmp_path / "public.sock", tmp_path / "lb.pid"):
            assert not os.path.exists(stale)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(25))
def test_control_killed_at_any_moment_leaves_no_orphan(tmp_path: Path, seed: int) -> None:
    """Also in the middle of a spawn, with shells that do not hand TERM on, and daemons."""
    delay_s = random.Random(seed).uniform(0.0, 1.5)
    command = "sh -c '(setsid sleep 617 &) ; $brittle & wait'"
    with serving(web(command=command, reload='min_ready = "0s"\nmax_surge = "100%"'), tmp_path) as lb:
        with subprocess.Popen(lb.command("reload"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
            until = monotonic() + delay_s
            lb.wait_until(lambda: monotonic() > until)
            os.kill(lb.pid, signal.SIGKILL)
        lb.wait_nothing_left(GONE_WITHIN_S)


def socket_directories(lb: Serving) -> set[Path]:
    return {Path(one["address"].removeprefix("unix:")).parent.parent for one in lb.backends()}


def test_directories_of_unix_sockets_that_a_killed_control_left_go_at_the_next_start(tmp_path: Path) -> None:
    with serving(web('bind = "unix"'), tmp_path) as lb, serving(web('bind = "unix"'), tmp_path / "other") as other:
        (left,) = socket_directories(lb)
        (others,) = socket_directories(other)
        os.kill(lb.pid, signal.SIGKILL)
        lb.wait_nothing_left(GONE_WITHIN_S)
        lb.start({})
        lb.wait_ready()
        assert not left.exists(), "whoever is the next to start on this machine removes it"
        assert others.exists(), "its control lives"
        assert other.get("/whoami").status == 200
        (ours,) = socket_directories(lb)
        assert lb.stop() == 0
        assert not ours.exists()


# -- no worker serves

BREAK_WORKERS = """
import os, sys, threading
if "lbproxy.worker" in sys.orig_argv and os.path.exists(os.environ["BROKEN"]):
    how = open(os.environ["BROKEN"]).read()
    if how == "at import":
        raise SystemExit("this worker is broken on purpose")
    threading.Timer(0.4, os._exit, (3,)).start()
"""


@contextlib.contextmanager
def breakable_workers(tmp_path: Path, config: str) -> Iterator[tuple[Serving, Path]]:
    (tmp_path / "sitecustomize.py").write_text(BREAK_WORKERS)
    how = tmp_path / "broken"
    with serving(config, tmp_path, environment={"PYTHONPATH": str(tmp_path), "BROKEN": str(how)}) as lb:
        yield lb, how


@pytest.mark.parametrize("when", ["at import", "soon"])
def test_a_reload_ends_although_no_worker_lives(tmp_path: Path, when: str) -> None:
    with breakable_workers(tmp_path, web(workers=2)) as (lb, how):
        how.write_text(when)
        for pid in lb.pids_of("lbproxy.worker"):
            os.kill(pid, signal.SIGKILL)
        lb.wait_until(lambda: lb.log().count('"worker.exited"') >= 4)
        done = lb.cli("reload", timeout_s=15)
        assert done.returncode == 0, done.stdout
        assert {one["generation"] for one in lb.backends()} == {2}
        if when == "at import":
            status = lb.cli("status")
            assert status.returncode == 4
            assert "degraded: 2 of 2 workers do not serve" in status.stdout
            lb.wait_log("this worker is broken on purpose")
        how.unlink()
        lb.wait_until(lambda: lb.cli("status", "-q").returncode == 0, 6)
        assert lb.get("/whoami").json()["generation"] == "2"


def test_workers_that_die_at_once_are_not_started_in_a_hurry(tmp_path: Path) -> None:
    with breakable_workers(tmp_path, web(size=1)) as (lb, how):
        how.write_text("at import")
        (worker,) = lb.pids_of("lbproxy.worker")
        os.kill(worker, signal.SIGKILL)
        with lb.connect() as waiting:
            waiting.sendall(b"GET /whoami HTTP/1.1\r\nHost: a\r\n\r\n")
            lb.wait_until(lambda: lb.log().count('"worker.started"') >= 4)
            times = [json.loads(line)["time"] for line in lb.log().splitlines() if '"worker.started"' in line]
            seconds = [float(time[17:-1]) for time in times]
            assert (seconds[3] - seconds[2]) % 60 >= 1.0, times
            how.unlink()
            assert waiting.recv(65536).startswith(b"HTTP/1.1 200 "), "it waited in the queue all the time"


# -- what the operator is told


def test_a_broken_deploy_shows_its_traceback_once(tmp_path: Path) -> None:
    with serving(web(), tmp_path) as lb:
        lb.write_config(web('env = { BREAK = "import" }'))
        done = lb.cli("reload")
        assert done.returncode == 5
        assert done.stdout.count("ImportError: this deploy is broken on purpose") == 1
        assert done.stdout.count("about to import the database driver") == 1
        assert done.stdout.count("Traceback") == 1
        lines = done.stdout.splitlines()
        said = next(number for number, line in enumerate(lines) if "ImportError" in line)
        assert len(lines) - said <= 5, "right above the verdict"


def test_old_ones_that_do_not_come_back_are_told_with_their_last_words(tmp_path: Path) -> None:
    """Two outputs, each once: why the new ones broke, and why the old ones could not be started again."""
    start = tmp_path / "start"
    start.write_text('exec "$@"\n')
    good = web(command="sh $dir/start $brittle", size=3, reload='min_ready = "300ms"')
    with serving(good, tmp_path) as lb:
        lb.write_config(good.replace("size = 3", 'size = 3\nenv = { LIVES = "1.5" }'))
        start.write_text('[ "$LIVES" ] || { echo "the old code is gone"; exit 3; }\nexec "$@"\n')
        done = lb.cli("reload")
        assert done.returncode == 6, done.stdout
        assert done.stdout.count("the old code is gone") >= 1
        assert "@1 wrote last:" in done.stdout


# -- what it leaves behind


@pytest.mark.soak
def test_memory_of_control_and_workers_is_bounded_over_many_reloads(tmp_path: Path) -> None:
    quick = web(size=4, workers=2, reload='min_ready = "0s"\nmax_surge = "100%"')
    with serving(quick, tmp_path) as lb, load(lb.port, clients=2) as clients:
        watched = [psutil.Process(pid) for pid in (lb.pid, *lb.pids_of("lbproxy.worker"))]
        sizes = []
        for round_ in range(60):
            assert lb.cli("reload", "-q").returncode == 0
            if round_ >= 20:
                sizes.append([process.memory_info().rss for process in watched])
        assert clients.lost == []
    for first, last in zip(sizes[0], sizes[-1], strict=True):
        assert last - first < 3 * 1024 * 1024, sizes


@pytest.mark.parametrize(("before", "after"), [(":$port", "127.0.0.1:$port"), ("127.0.0.1:$port", ":$port")])
def test_a_listener_may_become_narrower_or_wider_on_its_port_in_one_reload(
    before: str, after: str, tmp_path: Path
) -> None:
    config = web(size=1).replace("127.0.0.1:$port", before)
    with serving(config, tmp_path) as lb, load(lb.port, clients=2) as clients:
        clients.wait_more(20)
        lb.write_config(web(size=1).replace("127.0.0.1:$port", after))
        done = lb.cli("reload")
        assert done.returncode == 0, done.stdout
        clients.wait_more(20)
        assert clients.lost == []
        (listener,) = lb.status()["listeners"]
        assert listener["address"] == after.replace("$port", str(lb.port))


def test_a_listener_that_cannot_become_narrower_after_all_serves_as_before(tmp_path: Path) -> None:
    config = web(size=1).replace("127.0.0.1:$port", ":$port")
    with serving(config, tmp_path) as lb, load(lb.port, clients=2) as clients:
        lb.write_config(web('env = { BREAK = "import" }', size=1))
        assert lb.cli("reload").returncode == 5
        clients.wait_more(20)
        assert clients.lost == []
        assert lb.status()["listeners"][0]["address"] == f":{lb.port}"
