"""Every way to end lbproxy: exit code 0, requests in hand finished if there is time, and nothing left."""

import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from support.load import load
from support.over_tls import IS_ON, plain_only
from support.serve import LBPROXY, Serving, serving
from support.web import web

PROXY = 'pid_file = "lb.pid"\nshutdown_timeout = "4s"'


def assert_nothing_left(lb: Serving, timeout_s: float = 2.0) -> None:
    lb.wait_nothing_left(timeout_s)
    assert not os.path.exists(lb.control)
    assert not (lb.config.parent / "lb.pid").exists()
    if not IS_ON:  # else a bridge does
        with socket.create_server(("127.0.0.1", lb.port)):
            pass  # nobody listens there


def code_of(lb: Serving, timeout_s: float = 10.0) -> int:
    assert lb.process is not None
    return lb.process.wait(timeout_s)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_with_exit_code_0(tmp_path: Path, number: signal.Signals) -> None:
    with serving(web(proxy=PROXY, workers=2), tmp_path) as lb:
        assert (tmp_path / "lb.pid").read_text().strip() == str(lb.pid)
        lb.signal(number)
        assert code_of(lb) == 0
        assert_nothing_left(lb)


def test_a_request_in_hand_is_finished(tmp_path: Path) -> None:
    with serving(web(proxy=PROXY), tmp_path) as lb, lb.connect() as slow:
        slow.sendall(b"GET /slow?s=1 HTTP/1.1\r\nHost: a\r\n\r\n")
        lb.wait_until(lambda: sum(one["in_flight"] for one in lb.backends()) == 1)
        lb.signal(signal.SIGTERM)
        answer = slow.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"connection: close" in answer.lower()
        assert code_of(lb) == 0
        assert_nothing_left(lb)


def test_ctrl_c_reaches_the_whole_group_and_cuts_nothing(tmp_path: Path) -> None:
    with serving(web(proxy=PROXY), tmp_path) as lb, lb.connect() as slow:
        slow.sendall(b"GET /slow?s=1 HTTP/1.1\r\nHost: a\r\n\r\n")
        lb.wait_until(lambda: sum(one["in_flight"] for one in lb.backends()) == 1)
        os.killpg(lb.pid, signal.SIGINT)
        assert slow.makefile("rb").readline() == b"HTTP/1.1 200 OK\r\n"
        assert code_of(lb) == 0
        assert_nothing_left(lb)


@plain_only
def test_new_connections_are_refused_while_it_drains(tmp_path: Path) -> None:
    with serving(web(proxy=PROXY), tmp_path) as lb, lb.connect() as slow:
        slow.sendall(b"GET /slow?s=1.5 HTTP/1.1\r\nHost: a\r\n\r\n")
        lb.wait_until(lambda: sum(one["in_flight"] for one in lb.backends()) == 1)
        lb.signal(signal.SIGTERM)
        lb.wait_log("serve.stopping")

        def refused() -> bool:
            try:
                lb.connect().close()
            except ConnectionRefusedError:
                return True
            return False

        lb.wait_until(refused, 3.0)
        assert slow.makefile("rb").readline() == b"HTTP/1.1 200 OK\r\n"
        assert code_of(lb) == 0


def test_idle_connections_do_not_hold_it_up(tmp_path: Path) -> None:
    with serving(web(proxy=PROXY.replace("4s", "30s")), tmp_path) as lb:
        idle = [lb.connect() for _ in range(5)]
        idle[0].sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert idle[0].recv(65536).startswith(b"HTTP/1.1 200 ")
        lb.signal(signal.SIGTERM)
        assert code_of(lb, 4) == 0
        for sock in idle:
            assert sock.recv(1) == b""
            sock.close()


def test_what_outlasts_the_shutdown_timeout_is_cut(tmp_path: Path) -> None:
    with serving(web(proxy=PROXY.replace("4s", "1s"), restart='stop_timeout = "300ms"'), tmp_path) as lb:
        with lb.connect() as slow:
            slow.sendall(b"GET /slow?s=60 HTTP/1.1\r\nHost: a\r\n\r\n")
            lb.wait_until(lambda: sum(one["in_flight"] for one in lb.backends()) == 1)
            lb.signal(signal.SIGTERM)
            assert code_of(lb, 4) == 0
            assert not slow.makefile("rb").read().startswith(b"HTTP/1.1 200")
        assert_nothing_left(lb)


def test_a_second_signal_ends_it_at_once_and_says_that_it_cut_something(tmp_path: Path) -> None:
    with serving(web(proxy=PROXY.replace("4s", "60s")), tmp_path) as lb, lb.connect() as slow:
        slow.sendall(b"GET /slow?s=60 HTTP/1.1\r\nHost: a\r\n\r\n")
        lb.wait_until(lambda: sum(one["in_flight"] for one in lb.backends()) == 1)
        lb.signal(signal.SIGTERM)
        lb.wait_log("serve.stopping")
        lb.signal(signal.SIGINT)
        assert code_of(lb, 3) == 1
        assert_nothing_left(lb)
        lb.wait_log("SIGTERM; a second signal cut 1 in hand")


def test_a_second_signal_that_cuts_nothing_is_a_normal_end(tmp_path: Path) -> None:
    with serving(web('env = { BREAK = "term" }', proxy=PROXY, restart='stop_timeout = "60s"'), tmp_path) as lb:
        lb.signal(signal.SIGTERM)
        lb.wait_log("serve.stopping")
        lb.signal(signal.SIGINT)
        assert code_of(lb, 3) == 0
        assert_nothing_left(lb)


def test_a_backend_that_ignores_term_is_killed_in_time(tmp_path: Path) -> None:
    config = web('env = { BREAK = "term" }', proxy=PROXY.replace("4s", "1500ms"), restart='stop_timeout = "60s"')
    with serving(config, tmp_path) as lb:
        lb.signal(signal.SIGTERM)
        assert code_of(lb, 5) == 0
        assert_nothing_left(lb)


def test_stop_returns_when_it_is_gone(tmp_path: Path) -> None:
    with serving(web(proxy=PROXY), tmp_path) as lb:
        done = lb.cli("stop")
        assert done.returncode == 0
        assert_nothing_left(lb)
        assert code_of(lb) == 0
        again = lb.cli("stop")
        assert again.returncode == 3
        assert "not running" in again.stderr


def test_stop_now_does_not_wait_for_work_in_hand(tmp_path: Path) -> None:
    with serving(web(proxy=PROXY.replace("4s", "60s")), tmp_path) as lb, lb.connect() as slow:
        slow.sendall(b"GET /slow?s=60 HTTP/1.1\r\nHost: a\r\n\r\n")
        lb.wait_until(lambda: sum(one["in_flight"] for one in lb.backends()) == 1)
        assert lb.cli("stop", "--now", timeout_s=4).returncode == 0
        assert_nothing_left(lb)
        assert code_of(lb) == 0


def test_term_in_the_middle_of_a_reload_stops_both_generations(tmp_path: Path) -> None:
    with serving(web(proxy=PROXY, reload='min_ready = "5s"'), tmp_path) as lb:
        with subprocess.Popen(lb.command("reload"), stdout=subprocess.PIPE, text=True) as asking:
            lb.wait_until(lambda: len(lb.pids_of("brittle.py")) == 3)
            lb.signal(signal.SIGTERM)
            assert code_of(lb) == 0
            said, _ = asking.communicate(timeout=10)
            assert asking.returncode == 1
            assert "aborted" in said.splitlines()[-1]
        assert_nothing_left(lb)


def test_term_while_it_starts_leaves_nothing(tmp_path: Path) -> None:
    with serving(web('env = { BREAK = "silent" }', proxy=PROXY), tmp_path, wait=False) as lb:
        lb.wait_log("serve.started")
        lb.signal(signal.SIGTERM)
        assert code_of(lb, 6) == 0
        assert_nothing_left(lb)


@plain_only
def test_no_request_that_was_accepted_is_lost_when_it_stops(tmp_path: Path) -> None:
    """Clients see answers until the listener is gone, then refusals: never a connection that breaks off."""
    with serving(web(proxy=PROXY, workers=2), tmp_path) as lb, load(lb.port, keep_alive=False) as clients:
        lb.signal(signal.SIGTERM)
        assert code_of(lb) == 0
        clients.wait_more(20)
        assert [lost for lost in clients.lost if "ConnectionRefusedError" not in lost.how] == []


def test_a_unix_listener_leaves_no_socket_file(tmp_path: Path) -> None:
    config = web(proxy=PROXY).replace('"127.0.0.1:$port"', '"unix:public.sock"')
    with serving(config, tmp_path) as lb:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "public.sock"))
            client.sendall(b"GET /whoami HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert lb.stop() == 0
        assert not (tmp_path / "public.sock").exists()


def test_a_directory_for_the_control_socket_goes_with_it(tmp_path: Path) -> None:
    """The default path lies in a directory that lbproxy makes."""
    environment = {"XDG_RUNTIME_DIR": str(tmp_path / "r")}
    (tmp_path / "r").mkdir()
    config = web()
    with serving(config, tmp_path, environment=environment, arguments=lambda lb: ["-c", str(lb.config), "serve"]) as lb:
        assert str(tmp_path / "r" / "lbproxy") in lb.control
        asked = subprocess.run(
            [*LBPROXY, "-c", str(lb.config), "status", "-q"], env={**os.environ, **environment}, check=False, timeout=20
        )
        assert asked.returncode == 0
        assert lb.stop() == 0
        assert list((tmp_path / "r").iterdir()) == []
