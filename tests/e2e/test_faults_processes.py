"""Processes that do not do as they are told: they ignore TERM, multiply, leave their session, stand still."""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
from pathlib import Path
from time import monotonic

import pytest
from support.load import load
from support.serve import Serving, serving
from support.web import web

GONE_WITHIN_S = 8.0

# Six forks make 64 processes; then every second one begins a session of its own and gives its parent up.
BOMB = """
import os, sys
if os.fork() == 0:
    for _ in range(5):
        os.fork()
    if os.getpid() % 2:
        if os.fork():
            os._exit(0)
        os.setsid()
    open(sys.argv[1], "ab", 0).write(b".")
    os.execvp("sleep", ["sleep", "613"])
os.execv(sys.argv[2], sys.argv[2:])
"""


def sleepers(lb: Serving) -> set[int]:
    return lb.pids_of("sleep 613")


def bomb(tmp_path: Path) -> str:
    (tmp_path / "bomb.py").write_text(BOMB)
    return "$python $dir/bomb.py $dir/born $brittle"


def wait_exploded(lb: Serving, count: int) -> None:
    born = lb.config.parent / "born"
    lb.wait_until(lambda: born.exists() and born.stat().st_size >= count)
    lb.wait_until(lambda: len(sleepers(lb)) >= count)


def test_a_fork_bomb_is_gone_with_its_backend_also_what_left_its_session(tmp_path: Path) -> None:
    with serving(web(size=1, command=bomb(tmp_path)), tmp_path) as lb:
        wait_exploded(lb, 32)
        first = sleepers(lb)
        assert {os.getsid(pid) for pid in first} != {lb.backends()[0]["pid"]}, "some have left the session"
        assert lb.cli("reload").returncode == 0
        assert not first & sleepers(lb)
        wait_exploded(lb, 64 - 32)
        os.kill(lb.backends()[0]["pid"], signal.SIGKILL)  # a crash
        lb.wait_until(lambda: '"backend.exited"' in lb.log())
        lb.wait_ready()
        wait_exploded(lb, 32)
        assert len(sleepers(lb)) == 32, "those of the one that crashed are gone"
        assert lb.stop() == 0
        assert sleepers(lb) == set()


def test_a_fork_bomb_is_gone_when_control_is_killed(tmp_path: Path) -> None:
    with serving(web(size=1, command=bomb(tmp_path)), tmp_path) as lb:
        wait_exploded(lb, 32)
        os.kill(lb.pid, signal.SIGKILL)
        lb.wait_nothing_left(GONE_WITHIN_S)


def test_an_old_backend_that_ignores_term_is_killed_after_its_stop_timeout(tmp_path: Path) -> None:
    deaf = web('env = { BREAK = "term" }', size=1, restart='stop_timeout = "700ms"')
    with serving(deaf, tmp_path) as lb, load(lb.port, clients=2) as clients:
        old = lb.backends()[0]["pid"]
        begun = monotonic()
        done = lb.cli("reload")
        assert done.returncode == 0
        assert "web.1@1 stopped (KILL): it did not end within 0.7s of TERM" in done.stdout
        assert monotonic() - begun >= 0.7
        assert old not in lb.pids_of("brittle.py")
        clients.wait_more(10)
        assert clients.lost == []


def workers(lb: Serving) -> dict[int, int]:
    return {one["id"]: one["pid"] for one in lb.status()["workers"] if one["state"] == "serving"}


def test_a_worker_that_stands_still_for_a_moment_is_kept(tmp_path: Path) -> None:
    with serving(web(size=1), tmp_path) as lb, lb.connect() as client:
        (worker,) = workers(lb).values()
        os.kill(worker, signal.SIGSTOP)
        client.sendall(b"GET /whoami HTTP/1.1\r\nHost: a\r\n\r\n")
        stopped_until = monotonic() + 1.5
        lb.wait_until(lambda: monotonic() > stopped_until)
        os.kill(worker, signal.SIGCONT)
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert workers(lb) == {1: worker}
        assert "worker.hung" not in lb.log()


def test_a_worker_that_hangs_is_replaced_while_the_other_serves_on(tmp_path: Path) -> None:
    with serving(web(size=1, workers=2), tmp_path) as lb:
        before = workers(lb)
        held = [lb.connect() for _ in range(16)]  # some on each
        os.kill(before[1], signal.SIGSTOP)
        served = ask(held, within_s=1.0)
        assert 0 < len(served) < 16, "the clients of the other are served"
        lb.wait_until(lambda: workers(lb).get(1, before[1]) != before[1])
        assert workers(lb)[2] == before[2]
        lb.wait_until(lambda: lb.log().count('"worker.hung"') == 1)
        assert ask(served, within_s=3.0) == served
        for client in held:
            client.close()


def ask(clients: list[socket.socket], *, within_s: float) -> list[socket.socket]:
    """Those that had an answer in time."""
    for client in clients:
        client.sendall(b"GET /whoami HTTP/1.1\r\nHost: a\r\n\r\n")
    answered: set[socket.socket] = set()
    deadline = monotonic() + within_s
    while (left_s := deadline - monotonic()) > 0 and len(answered) < len(clients):
        ready, _, _ = select.select([client for client in clients if client not in answered], [], [], left_s)
        answered |= {client for client in ready if client.recv(65536).startswith(b"HTTP/1.1 200 ")}
    return [client for client in clients if client in answered]


@pytest.mark.soak
def test_control_that_stands_still_takes_no_worker_for_hung(tmp_path: Path) -> None:
    with serving(web(size=1, workers=2), tmp_path) as lb, load(lb.port) as clients:
        before = workers(lb)
        os.kill(lb.pid, signal.SIGSTOP)
        stopped_until = monotonic() + 12.0
        lb.wait_until(lambda: monotonic() > stopped_until)
        os.kill(lb.pid, signal.SIGCONT)
        clients.wait_more(100)
        assert clients.lost == []
        assert workers(lb) == before


def test_a_worker_that_hangs_does_not_outlive_a_killed_control(tmp_path: Path) -> None:
    """It cannot notice the end of its link: the guard ends it, and its port is free again."""
    with serving(web(size=1), tmp_path) as lb:
        (worker,) = workers(lb).values()
        os.kill(worker, signal.SIGSTOP)
        os.kill(lb.pid, signal.SIGKILL)
        lb.wait_nothing_left(GONE_WITHIN_S)
        lb.start({})
        lb.wait_ready()
        assert lb.get("/whoami").status == 200


def guard_of(lb: Serving) -> set[int]:
    return lb.pids_of("lbproxy.supervise.guard")


def test_a_guard_that_was_killed_twice_still_does_its_work(tmp_path: Path) -> None:
    with serving(web(size=1), tmp_path) as lb:
        for _ in range(2):
            (guard,) = guard_of(lb)
            os.kill(guard, signal.SIGKILL)
            lb.wait_until(lambda guard=guard: guard_of(lb) - {guard})
            assert lb.cli("reload").returncode == 0
        os.kill(lb.pid, signal.SIGKILL)
        lb.wait_nothing_left(GONE_WITHIN_S)


# -- what a terminal and `timeout` do


def test_two_terms_in_a_row_are_one(tmp_path: Path) -> None:
    """`timeout` signals the process and then its group."""
    with serving(web(size=1), tmp_path) as lb, lb.connect() as slow:
        slow.sendall(b"GET /slow?s=1 HTTP/1.1\r\nHost: a\r\n\r\n")
        lb.wait_until(lambda: lb.backends()[0]["in_flight"] == 1)
        lb.signal(signal.SIGTERM)
        lb.wait_log('"serve.stopping"', 5)
        lb.signal(signal.SIGTERM)
        assert slow.makefile("rb").readline() == b"HTTP/1.1 200 OK\r\n"
        assert lb.stop() == 0


def test_a_second_term_a_moment_later_means_now(tmp_path: Path) -> None:
    with serving(web(size=1), tmp_path) as lb, lb.connect() as slow:
        slow.sendall(b"GET /slow?s=60 HTTP/1.1\r\nHost: a\r\n\r\n")
        lb.wait_until(lambda: lb.backends()[0]["in_flight"] == 1)
        lb.signal(signal.SIGTERM)
        lb.wait_log('"serve.stopping"', 5)
        later = monotonic() + 0.3
        lb.wait_until(lambda: monotonic() > later)
        lb.signal(signal.SIGTERM)
        assert lb.process is not None
        assert lb.process.wait(3) == 1, "it cut a request"


def test_timeout_lets_requests_in_hand_finish(tmp_path: Path) -> None:
    with serving(web(size=1), tmp_path, prefix=["timeout", "60"]) as lb, lb.connect() as slow:
        slow.sendall(b"GET /slow?s=1 HTTP/1.1\r\nHost: a\r\n\r\n")
        lb.wait_until(lambda: lb.backends()[0]["in_flight"] == 1)
        lb.signal(signal.SIGTERM)  # `timeout` hands it on as it does when the time is over
        assert slow.makefile("rb").readline() == b"HTTP/1.1 200 OK\r\n"
        assert lb.stop() == 0


def test_impatience_costs_nothing_but_the_requests_in_hand(tmp_path: Path) -> None:
    """TERM again and again, to the very end: it still puts everything away, and ends with 0."""
    with serving(web(size=1, proxy='pid_file = "lb.pid"'), tmp_path) as lb:
        assert lb.process is not None
        code = None
        while code is None:
            lb.signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = lb.process.wait(0.005)
        assert code == 0
        assert not os.path.exists(lb.control)
        assert not (tmp_path / "lb.pid").exists()
        lb.wait_nothing_left()


@pytest.mark.long
def test_term_at_any_moment_of_the_start_leaves_nothing(tmp_path: Path) -> None:
    with serving(web(size=1, proxy='pid_file = "lb.pid"'), tmp_path, wait=False) as lb:
        for turn in range(4):
            if turn:
                lb.start({})
            lb.wait_until(lambda: lb.exited() or os.path.exists(lb.control))  # the first thing that it makes
            lb.signal(signal.SIGTERM)
            assert lb.stop() == 0
            assert not os.path.exists(lb.control)
            assert not (tmp_path / "lb.pid").exists()
            lb.wait_nothing_left(3)


def test_a_wall_clock_that_jumps_disturbs_nothing(tmp_path: Path) -> None:
    """Each look at it is a day before or behind the last: control, workers and guard only stamp their lines with it."""
    (tmp_path / "sitecustomize.py").write_text(
        "import time\n_real, _turn = time.time, [1]\n"
        "def lunatic():\n    _turn[0] = -_turn[0]\n    return _real() + _turn[0] * 86400\ntime.time = lunatic\n"
    )
    health = 'path = "/healthz"\ninterval = "100ms"'
    environment = {"PYTHONPATH": str(tmp_path)}
    with serving(web(health=health), tmp_path, environment=environment) as lb, load(lb.port) as clients:
        assert lb.cli("reload").returncode == 0
        os.kill(lb.backends()[0]["pid"], signal.SIGKILL)
        lb.wait_until(lambda: [one["restarts"] for one in lb.backends()] == [1, 0])
        lb.wait_ready(5)
        clients.wait_more(100)
        assert len(clients.lost) <= 4
        stamps = {json.loads(line)["time"][:10] for line in lb.log().splitlines() if line.startswith("{")}
        assert len(stamps) > 1, "the clock did jump"
