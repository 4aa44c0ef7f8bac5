"""kill -9 of everything there is, under load: what was on it is lost at most, it is replaced, nothing is orphaned."""

import os
import signal
from pathlib import Path
from time import monotonic

import psutil
import pytest
from support.load import Clients, load
from support.serve import Serving, serving
from support.web import web

REPLACED_WITHIN_S = 4.0
GONE_WITHIN_S = 8.0


def assert_lost_at_most(clients: Clients, count: int, killed_at: float) -> None:
    assert len(clients.lost) <= count, clients.lost
    assert all(lost.at < killed_at + 1.0 for lost in clients.lost), clients.lost


def wait_replaced(lb: Serving, *restarts: int) -> None:
    """Until each backend has been started again so often, and is ready."""
    lb.wait_until(
        lambda: [(one["restarts"], one["state"]) for one in lb.backends()] == [(count, "ready") for count in restarts],
        REPLACED_WITHIN_S,
    )


def workers(lb: Serving) -> dict[int, int]:
    return {worker["id"]: worker["pid"] for worker in lb.status()["workers"] if worker["state"] == "serving"}


def test_a_killed_backend_loses_what_was_on_it_and_is_replaced(tmp_path: Path) -> None:
    with serving(web(), tmp_path) as lb, load(lb.port) as clients:
        victim = lb.backends()[0]["pid"]
        os.kill(victim, signal.SIGKILL)
        killed_at = monotonic()
        wait_replaced(lb, 1, 0)
        clients.wait_more(100)
        assert_lost_at_most(clients, 4, killed_at)
        assert victim not in {backend["pid"] for backend in lb.backends()}
        lb.wait_log("signal SIGKILL")


def test_all_backends_killed_at_once_lose_only_what_was_on_them(tmp_path: Path) -> None:
    with serving(web(), tmp_path) as lb, load(lb.port) as clients:
        for backend in lb.backends():
            os.kill(backend["pid"], signal.SIGKILL)
        killed_at = monotonic()
        wait_replaced(lb, 1, 1)
        clients.wait_more(100)
        assert_lost_at_most(clients, 4, killed_at)


def test_a_killed_worker_loses_its_own_connections_and_is_replaced(tmp_path: Path) -> None:
    with serving(web(workers=2), tmp_path) as lb, load(lb.port, clients=8) as clients:
        before = workers(lb)
        os.kill(before[1], signal.SIGKILL)
        killed_at = monotonic()
        lb.wait_until(lambda: len(workers(lb)) == 2 and workers(lb)[1] != before[1], REPLACED_WITHIN_S)
        assert workers(lb)[2] == before[2]
        clients.wait_more(100)
        assert_lost_at_most(clients, 8, killed_at)


def test_connections_that_wait_for_a_killed_worker_are_served_by_its_successor(tmp_path: Path) -> None:
    with serving(web(), tmp_path) as lb:
        (worker,) = workers(lb).values()
        os.kill(worker, signal.SIGSTOP)
        waiting = [lb.connect() for _ in range(20)]
        for sock in waiting:
            sock.sendall(b"GET /whoami HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        os.kill(worker, signal.SIGKILL)
        answers = [sock.makefile("rb").read() for sock in waiting]
        for sock in waiting:
            sock.close()
        assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in answers)


def test_a_worker_that_hangs_is_killed_and_replaced(tmp_path: Path) -> None:
    with serving(web(size=1), tmp_path) as lb:
        (worker,) = workers(lb).values()
        os.kill(worker, signal.SIGSTOP)
        done = lb.cli("reload")  # it cannot acknowledge the new table
        assert done.returncode == 0, done.stdout + done.stderr
        lb.wait_log("worker.hung")
        assert lb.get("/whoami").json()["generation"] == "2"


def test_a_reload_survives_a_worker_that_dies_in_it(tmp_path: Path) -> None:
    with serving(web(workers=2), tmp_path) as lb, load(lb.port, keep_alive=False) as clients:
        first = lb.cli("reload", "--no-wait")
        assert first.returncode == 0
        os.kill(workers(lb)[1], signal.SIGKILL)
        killed_at = monotonic()
        lb.wait_log("reload.finished")
        lb.wait_log('"exit_code":0')
        lb.wait_ready(REPLACED_WITHIN_S)
        clients.wait_more(50)
        assert_lost_at_most(clients, 4, killed_at)


@pytest.mark.parametrize(
    ("request_line", "status_line"),
    [
        (b"POST /slow?s=30 HTTP/1.1\r\nContent-Length: 0", b"HTTP/1.1 502 Bad Gateway\r\n"),
        (b"GET /slow?s=3 HTTP/1.1", b"HTTP/1.1 200 OK\r\n"),  # it may be sent again, to another backend
    ],
    ids=["post", "get"],
)
def test_an_old_backend_that_dies_while_it_drains_does_not_disturb_the_reload(
    tmp_path: Path, request_line: bytes, status_line: bytes
) -> None:
    with serving(web(), tmp_path) as lb, lb.connect() as slow:
        slow.sendall(request_line + b"\r\nHost: a\r\n\r\n")
        lb.wait_until(lambda: sum(backend["in_flight"] for backend in lb.backends()) == 1)
        (busy,) = (backend["pid"] for backend in lb.backends() if backend["in_flight"])
        lb.cli("reload", "--no-wait")
        lb.wait_until(lambda: [b for b in lb.backends() if b["state"] == "draining" and b["pid"] == busy])
        os.kill(busy, signal.SIGKILL)
        lb.wait_log("reload.finished")
        lb.wait_log('"exit_code":0')
        assert slow.makefile("rb").readline() == status_line
        assert {backend["generation"] for backend in lb.backends()} == {2}


def guards(lb: Serving) -> set[int]:
    return lb.pids_of("lbproxy.supervise.guard")


def kill_guard(lb: Serving) -> None:
    """And wait for the next."""
    (first,) = guards(lb)
    os.kill(first, signal.SIGKILL)
    lb.wait_until(lambda: guards(lb) - {first}, REPLACED_WITHIN_S)


def test_a_killed_guard_is_replaced_and_nobody_notices(tmp_path: Path) -> None:
    with serving(web(), tmp_path) as lb, load(lb.port) as clients:
        before = {backend["pid"] for backend in lb.backends()}
        kill_guard(lb)
        clients.wait_more(50)
        assert clients.lost == []
        assert {backend["pid"] for backend in lb.backends()} == before


def kill_control(lb: Serving) -> None:
    assert lb.process is not None
    os.kill(lb.pid, signal.SIGKILL)
    assert lb.process.wait() == -signal.SIGKILL


APP_AND_WAIT = """sh -c '$brittle & wait'"""


@pytest.mark.parametrize("command", ["$brittle", APP_AND_WAIT])
def test_nothing_is_left_when_control_is_killed(tmp_path: Path, command: str) -> None:
    with serving(web(command=command), tmp_path) as lb, load(lb.port) as clients:
        clients.wait_more(10)
        assert len(lb.processes()) >= 5
        kill_control(lb)
        lb.wait_nothing_left(GONE_WITHIN_S)


def test_a_new_guard_knows_the_backends_that_were_there_before_it(tmp_path: Path) -> None:
    with serving(web(command=APP_AND_WAIT), tmp_path) as lb:
        kill_guard(lb)
        assert lb.get().status == 200
        kill_control(lb)
        lb.wait_nothing_left(GONE_WITHIN_S)


def test_backends_that_ignore_term_are_gone_too_when_control_is_killed(tmp_path: Path) -> None:
    with serving(web('env = { BREAK = "term" }', restart='stop_timeout = "500ms"'), tmp_path) as lb:
        kill_control(lb)
        lb.wait_nothing_left(GONE_WITHIN_S)


def test_a_new_serve_takes_over_the_port_after_a_kill(tmp_path: Path) -> None:
    with serving(web(), tmp_path) as lb:
        kill_control(lb)
        lb.wait_nothing_left(GONE_WITHIN_S)
        assert os.path.exists(lb.control)  # stale: nobody answers
        assert lb.cli("status").returncode == 3
        lb.start({})
        lb.wait_ready()
        assert lb.get().status == 200


def test_who_starts_it_again_at_once_serves_again_at_once(tmp_path: Path) -> None:
    """As systemd would: the workers and backends of the one that was killed may not be gone yet."""
    with serving(web(proxy='pid_file = "lb.pid"'), tmp_path) as lb:
        kill_control(lb)
        lb.start({})
        lb.wait_ready(2 * REPLACED_WITHIN_S)
        assert lb.get().status == 200
        lb.wait_until(lambda: len(lb.pids_of("brittle.py")) == 2)


def test_a_backend_that_keeps_dying_is_given_up_and_the_others_serve_on(tmp_path: Path) -> None:
    restart = 'backoff = { first = "50ms", max = "100ms" }\ngive_up = { crashes = 3, within = "60s" }'
    with serving(web(restart=restart), tmp_path) as lb, load(lb.port) as clients:
        for _ in range(3):
            lb.wait_ready()
            (pid,) = (backend["pid"] for backend in lb.backends() if backend["id"] == "web.1")
            os.kill(pid, signal.SIGKILL)
            lb.wait_until(lambda pid=pid: pid not in {backend["pid"] for backend in lb.backends()})
        lb.wait_log("backend.failed")
        status = lb.cli("status")
        assert status.returncode == 4
        assert "failed" in status.stdout
        clients.wait_more(50)
        assert len(clients.lost) <= 12
        assert lb.cli("reload").returncode == 0
        assert lb.cli("status", "-q").returncode == 0


def test_a_crashed_backend_comes_back_as_what_it_was(tmp_path: Path) -> None:
    """From its own generation: what has changed on the disk since waits for a reload."""
    for name, color in (("release-1", "red"), ("release-2", "blue")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.sh").write_text(f"export COLOR={color}\nexec $@\n")
    (tmp_path / "current").symlink_to("release-1")
    (tmp_path / "my.env").write_text("SIZE=small\n")
    config = web('directory = "current"\nenv_file = "my.env"', size=1, command="sh run.sh $brittle")
    with serving(config, tmp_path) as lb:
        (tmp_path / "next").symlink_to("release-2")
        (tmp_path / "next").rename(tmp_path / "current")
        (tmp_path / "my.env").write_text("SIZE=large\n")
        lb.write_config(config + "# changed\n")
        os.kill(lb.backends()[0]["pid"], signal.SIGKILL)
        wait_replaced(lb, 1)
        assert (lb.get("/env?name=COLOR").body, lb.get("/env?name=SIZE").body) == (b"red", b"small")
        assert lb.cli("reload").returncode == 0
        assert (lb.get("/env?name=COLOR").body, lb.get("/env?name=SIZE").body) == (b"blue", b"large")


def test_no_zombies_are_left_whatever_dies(tmp_path: Path) -> None:
    with serving(web(command=APP_AND_WAIT), tmp_path) as lb:
        control = psutil.Process(lb.pid)
        for backend in lb.backends():
            os.kill(backend["pid"], signal.SIGKILL)  # the shell; its child is orphaned
        wait_replaced(lb, 1, 1)
        lb.wait_until(lambda: not [p for p in control.children(recursive=True) if p.status() == psutil.STATUS_ZOMBIE])
        assert len(lb.pids_of("brittle.py") - lb.pids_of("sh -c")) == 2, "what the killed shells had started is gone"
