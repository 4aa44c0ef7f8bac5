"""Clients and circumstances that mean no good: lbproxy says so, and serves everybody else."""

import contextlib
import os
import resource
import signal
import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic

import psutil
import pytest
from support.load import load
from support.serve import serving
from support.web import web


def with_listener(keys: str, **texts: str) -> str:
    return web(size=1, **texts).replace('name = "public"', f'name = "public"\n{keys}')


def until_closed(client: socket.socket) -> bytes:
    answer = b""
    with contextlib.suppress(ConnectionResetError):
        while data := client.recv(65536):
            answer += data
    return answer


def test_a_head_that_dribbles_is_a_408_and_silence_is_closed_silently(tmp_path: Path) -> None:
    with serving(with_listener('timeouts = { header = "400ms", idle = "600ms" }'), tmp_path) as lb:
        with lb.connect() as slow, lb.connect() as silent:
            slow.sendall(b"GET / HTTP/1.1\r\nHost: ")
            assert until_closed(slow).startswith(b"HTTP/1.1 408 ")
            assert until_closed(silent) == b""
        assert lb.get("/whoami").status == 200


def test_a_body_that_stalls_is_a_408_and_its_backend_is_free_again(tmp_path: Path) -> None:
    with serving(with_listener('timeouts = { body = "400ms" }'), tmp_path) as lb, lb.connect() as slow:
        slow.sendall(b"POST /sum HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\n\r\n" + b"x" * 100_000)
        assert until_closed(slow).startswith(b"HTTP/1.1 408 ")
        lb.wait_until(lambda: lb.backends()[0]["in_flight"] == 0, 3)


def test_a_slow_body_of_64_kib_holds_a_connection_and_no_backend(tmp_path: Path) -> None:
    with serving(web(size=1), tmp_path) as lb, lb.connect() as slow:
        slow.sendall(b"POST /sum HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n" + b"x" * 999)
        assert lb.get("/whoami").status == 200
        assert lb.backends()[0]["in_flight"] == 0
        slow.sendall(b"x")
        assert slow.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_slow_readers_hold_no_backend_when_the_answer_is_small(tmp_path: Path) -> None:
    with serving(web("limits = { connections = 1 }", size=1, command="$origin --port {port}"), tmp_path) as lb:
        slow = [lb.connect() for _ in range(10)]
        for client in slow:
            client.sendall(b"GET /2k HTTP/1.1\r\nHost: a\r\n\r\n")  # and nobody reads
        assert lb.get("/whoami").status == 200
        for client in slow:
            client.close()


def test_connections_over_the_listeners_limit_wait_and_are_served_later(tmp_path: Path) -> None:
    with serving(with_listener("limits = { connections = 5 }"), tmp_path) as lb:
        idle = [lb.connect() for _ in range(5)]
        lb.wait_until(lambda: lb.status()["workers"][0]["connections"] == 5)
        with lb.connect() as late:
            late.sendall(b"GET /whoami HTTP/1.1\r\nHost: a\r\n\r\n")
            lb.wait_log('"accept.paused"')
            for client in idle:
                client.close()
            assert late.recv(65536).startswith(b"HTTP/1.1 200 ")
        lb.wait_log('"accept.resumed"')


def test_running_out_of_descriptors_pauses_accepting_and_recovers(tmp_path: Path) -> None:
    with serving(web(size=1), tmp_path) as lb:
        (worker,) = (one["pid"] for one in lb.status()["workers"])
        in_use = psutil.Process(worker).num_fds()
        _, hard = resource.prlimit(worker, resource.RLIMIT_NOFILE)
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (in_use + 10, hard))
        many = [lb.connect() for _ in range(30)]
        lb.wait_log('"accept.paused"')
        lb.wait_log("open files")
        for client in many[:10]:
            client.close()
        for client in many[10:]:
            client.close()
        lb.wait_log('"accept.resumed"')
        assert lb.get("/whoami").status == 200
        assert worker == lb.status()["workers"][0]["pid"]


def test_control_without_descriptors_turns_the_reload_back_and_serves_on(tmp_path: Path) -> None:
    with serving(web(), tmp_path) as lb, load(lb.port, clients=2) as clients:
        before = lb.backends()
        _, hard = resource.prlimit(lb.pid, resource.RLIMIT_NOFILE)
        in_use = psutil.Process(lb.pid).num_fds()
        for left in (2, 3, 4):  # they run out at another place each time
            resource.prlimit(lb.pid, resource.RLIMIT_NOFILE, (in_use + left, hard))
            done = lb.cli("reload")
            assert done.returncode == 5, done.stdout
            assert "Too many open files" in done.stdout
        resource.prlimit(lb.pid, resource.RLIMIT_NOFILE, (hard, hard))
        assert [one["pid"] for one in lb.backends()] == [one["pid"] for one in before]
        assert lb.cli("reload").returncode == 0
        assert clients.lost == []


def test_clients_that_reset_at_every_point_leave_nothing_behind(tmp_path: Path) -> None:
    raw = b"POST /sum HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    with serving(web(size=1), tmp_path) as lb:
        for cut in range(0, len(raw), 3):
            with lb.connect() as client:
                client.sendall(raw[:cut])
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        for _ in range(20):
            with lb.connect() as client:
                client.sendall(b"GET /slow?s=20 HTTP/1.1\r\nHost: a\r\n\r\n")
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        lb.wait_until(lambda: lb.status()["workers"][0]["connections"] == 0)
        lb.wait_until(lambda: lb.backends()[0]["in_flight"] == 0)
        assert lb.get("/whoami").status == 200
        assert "Traceback" not in lb.log()


def test_a_backend_that_hangs_leaves_the_table_and_comes_back(tmp_path: Path) -> None:
    health = 'path = "/healthz"\ninterval = "100ms"\ntimeout = "200ms"\nfall = 2\nrise = 1'
    with serving(web(health=health), tmp_path) as lb:
        hangs = lb.backends()[0]["pid"]
        os.kill(hangs, signal.SIGSTOP)
        lb.wait_until(lambda: lb.backends()[0]["state"] == "unhealthy")
        with load(lb.port) as clients:
            clients.wait_more(50)
        assert clients.lost == []
        assert lb.cli("status", "-q").returncode == 4
        os.kill(hangs, signal.SIGCONT)
        lb.wait_until(lambda: lb.backends()[0]["state"] == "ready")
        assert lb.backends()[0]["pid"] == hangs


def test_a_backend_that_refuses_connections_leaves_the_table_before_its_next_probe(tmp_path: Path) -> None:
    """It lives, but what the workers meet counts like a failed probe; who was refused goes to the other one."""
    with serving(web(health='path = "/healthz"\ninterval = "60s"'), tmp_path) as lb:
        assert lb.get("/deaf").status == 200
        with load(lb.port, keep_alive=False) as clients:
            lb.wait_until(lambda: sorted(one["state"] for one in lb.backends()) == ["ready", "unhealthy"], 5)
            clients.wait_more(20)
        assert clients.lost == []


def test_a_stopped_old_backend_does_not_hold_up_a_reload_for_ever(tmp_path: Path) -> None:
    with serving(web(restart='stop_timeout = "500ms"'), tmp_path) as lb:
        os.kill(lb.backends()[0]["pid"], signal.SIGSTOP)
        done = lb.cli("reload", timeout_s=20)
        assert done.returncode == 0, done.stdout
        assert {one["generation"] for one in lb.backends()} == {2}


def test_many_reloads_leak_neither_descriptors_nor_processes(tmp_path: Path) -> None:
    fast = web(size=1, command="$origin --port {port}", reload='min_ready = "0s"')
    with serving(fast, tmp_path) as lb, load(lb.port, clients=2) as clients:
        lb.cli("reload")
        control, (worker,) = lb.pid, (one["pid"] for one in lb.status()["workers"])
        before = [psutil.Process(pid).num_fds() for pid in (control, worker)], len(lb.processes())
        for _ in range(6):
            assert lb.cli("reload").returncode == 0
        lb.wait_until(lambda: len(lb.processes()) == before[1])
        for pid, count in zip((control, worker), before[0], strict=True):
            lb.wait_until(lambda pid=pid, count=count: psutil.Process(pid).num_fds() <= count + 3)
        clients.wait_more(20)
        assert clients.lost == []
        assert lb.backends()[0]["generation"] == 8


def test_strangers_on_the_control_socket_disturb_nobody(tmp_path: Path) -> None:
    with serving(web(size=1), tmp_path) as lb, contextlib.ExitStack() as opened:
        for text in (
            b"",
            b"GET",
            b"\x16\x03\x01",
            b"GET /v1/status HTTP/1.1\r\n",
            b"POST /v1/reload HTTP/1.1\r\n\r\n{",
        ):
            client = opened.enter_context(socket.socket(socket.AF_UNIX))
            client.connect(lb.control)
            client.sendall(text)
        assert lb.cli("status", "-q").returncode == 0
        assert lb.cli("reload").returncode == 0
        assert lb.backends()[0]["generation"] == 2


def test_signals_to_all_of_its_processes_kill_nobody(tmp_path: Path) -> None:
    with serving(web(size=1), tmp_path) as lb:
        for pid in lb.pids_of("lbproxy.worker") | lb.pids_of("lbproxy.supervise.guard"):
            for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT):
                os.kill(pid, number)  # as `pkill -f lbproxy` would
        assert lb.get("/whoami").status == 200
        assert "worker.exited" not in lb.log()


def test_kills_in_the_middle_of_reloads_lose_what_was_on_the_victims(tmp_path: Path) -> None:
    with serving(web(size=3, workers=2), tmp_path) as lb, load(lb.port, clients=4, keep_alive=False) as clients:
        for round_ in range(2):
            lb.cli("reload", "--no-wait")
            victims = [one["pid"] for one in lb.backends() if one["generation"] == round_ + 1 and one["pid"]]
            with contextlib.suppress(ProcessLookupError):
                os.kill(victims[-1], signal.SIGKILL)
            os.kill(lb.status()["workers"][round_ % 2]["pid"], signal.SIGKILL)
            lb.wait_until(lambda round_=round_: lb.log().count('"reload.finished"') == round_ + 1)
        lb.wait_ready()
        lost = len(clients.lost)
        assert lost <= 2 * 8
        clients.wait_more(50)
        assert len(clients.lost) == lost
        assert {one["generation"] for one in lb.backends()} == {3}


@pytest.fixture
def unshared() -> list[str]:
    """A command that makes the next one PID 1."""
    command = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    try:
        code = os.spawnvp(os.P_WAIT, command[0], [*command, "true"])
    except OSError:
        code = 1
    if code != 0:
        pytest.skip("no PID namespaces here")
    return command


def test_as_pid_1_it_reaps_strangers(tmp_path: Path, unshared: list[str]) -> None:
    orphans = "sh -c '(sleep 0.3 &) ; (true &) ; exec $brittle'"
    with serving(web(size=1, command=orphans), tmp_path, prefix=unshared) as lb:
        control = psutil.Process(lb.pid).children()[0]
        assert lb.status()["pid"] == 1
        assert lb.get("/whoami").status == 200

        def zombies() -> list[psutil.Process]:
            return [one for one in control.children(recursive=True) if one.status() == psutil.STATUS_ZOMBIE]

        lb.wait_until(lambda: not lb.pids_of("sleep 0.3") and not zombies())
        assert lb.cli("reload").returncode == 0
        lb.wait_until(lambda: not zombies())
        control.terminate()
        assert lb.process is not None
        assert lb.process.wait(10) == 0


def test_requests_that_wait_are_answered_in_order_of_their_patience(tmp_path: Path) -> None:
    """200 requests against one backend that takes one at a time: nobody is lost, nobody starves."""
    with serving(web("limits = { connections = 1 }", size=1), tmp_path) as lb, ThreadPoolExecutor(40) as clients:
        begun = monotonic()
        answers = list(clients.map(lambda _: lb.get("/whoami").status, range(200)))
        assert answers == [200] * 200
        assert monotonic() - begun < 8


def test_workers_can_be_added_by_a_reload(tmp_path: Path) -> None:
    with serving(web(workers=1), tmp_path) as lb, load(lb.port, keep_alive=False) as clients:
        lb.write_config(web(workers=2))
        assert lb.cli("reload", "--config-only").returncode == 0
        lb.wait_until(lambda: [one["state"] for one in lb.status()["workers"]] == ["serving"] * 2)
        clients.wait_more(30)
        lb.write_config(web(workers=1))
        assert lb.cli("reload", "--config-only").returncode == 0
        clients.wait_more(30)
        assert clients.lost == []
