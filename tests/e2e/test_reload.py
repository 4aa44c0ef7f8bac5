"""Reloads of a real lbproxy under real clients: who may ask, what is replaced, and that no request is lost."""

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
from pathlib import Path

import pytest
from support.load import ab, load
from support.over_tls import plain_only
from support.serve import Serving, serving
from support.web import web

ORIGIN = web(command="$origin --port {port}", size=2, workers=2)


def generations(lb: Serving, pool: str = "web") -> set[int]:
    return {backend["generation"] for backend in lb.backends(pool)}


def pids(lb: Serving, pool: str = "web") -> set[int]:
    return {backend["pid"] for backend in lb.backends(pool)}


def finished(lb: Serving) -> int:
    return lb.log().count('"reload.finished"')


@pytest.mark.peer("ab")
def test_ab_loses_no_request_when_reloads_come_in_the_middle(tmp_path: Path) -> None:
    with serving(ORIGIN, tmp_path) as lb:
        with ab(lb.port, 5000, 100) as reports:
            assert lb.cli("reload").returncode == 0
            assert lb.cli("reload").returncode == 0
        (report,) = reports
        assert (report.complete, report.failed, report.others) == (5000, 0, 0), report.output
        assert generations(lb) == {3}
        with ab(lb.port, 6000, 50, "-k") as reports:  # HTTP/1.0 with keep-alive: it keeps its connections
            assert lb.cli("reload").returncode == 0
        (report,) = reports
        assert (report.complete, report.failed, report.others) == (6000, 0, 0), report.output
        assert report.keep_alive == 6000


@pytest.mark.peer("wrk")
def test_wrk_sees_no_error_when_a_reload_comes_in_the_middle(tmp_path: Path) -> None:
    with serving(ORIGIN, tmp_path) as lb:
        command = ["wrk", "-t", "1", "-c", "20", "-d", "2", f"http://127.0.0.1:{lb.port}/whoami"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as wrk:
            assert lb.cli("reload").returncode == 0
            output, _ = wrk.communicate(timeout=30)
        assert "requests in" in output
        assert "Socket errors" not in output
        assert "Non-2xx" not in output


def test_usr2_and_hup_replace_every_backend(tmp_path: Path) -> None:
    with serving(web(), tmp_path) as lb, load(lb.port) as clients:
        for count, number in enumerate((signal.SIGUSR2, signal.SIGHUP), 1):
            before = pids(lb)
            lb.signal(number)
            lb.wait_until(lambda count=count: finished(lb) == count)
            clients.wait_more(20)
            assert clients.lost == []
            assert generations(lb) == {count + 1}
            assert not before & pids(lb)


def test_signals_during_a_reload_by_signal_or_command_give_exactly_one_more(tmp_path: Path) -> None:
    with serving(web(size=1), tmp_path) as lb:
        lb.signal(signal.SIGUSR2)
        lb.wait_log('"reload.started"')
        for _ in range(5):
            lb.signal(signal.SIGUSR2)
            lb.signal(signal.SIGHUP)
        lb.wait_until(lambda: finished(lb) == 2)
        assert lb.cli("reload").returncode == 0  # not busy: no third one is waiting
        lb.wait_until(lambda: finished(lb) == 3)
        assert generations(lb) == {4}
        with subprocess.Popen(lb.command("reload"), stdout=subprocess.PIPE, text=True) as first:
            lb.wait_until(lambda: lb.log().count('"reload.started"') == 4)
            lb.signal(signal.SIGUSR2)
            assert "reloaded web to generation 5" in first.communicate(timeout=30)[0].splitlines()[-1]
        lb.wait_until(lambda: finished(lb) == 5)
        assert generations(lb) == {6}


def test_a_second_reload_is_told_at_once_that_one_is_running(tmp_path: Path) -> None:
    with serving(web(size=1, reload='min_ready = "1s"'), tmp_path) as lb:
        with subprocess.Popen(lb.command("reload"), stdout=subprocess.PIPE, text=True) as first:
            lb.wait_log('"reload.started"')
            second = lb.cli("reload")
            assert second.returncode == 8
            # Which pools, since when, and who asked.
            which = r"another reload is running \(r1, reload of web by command of uid \d+, pid \d+, since 2\S+Z\)"
            assert re.search(which, second.stderr), second.stderr
            assert first.poll() is None
            first.communicate(timeout=30)
            assert first.returncode == 0
        assert generations(lb) == {2}


def test_a_reload_goes_on_when_the_one_who_asked_hangs_up(tmp_path: Path) -> None:
    with serving(web(size=1), tmp_path) as lb:
        for count, number in enumerate((signal.SIGKILL, signal.SIGINT), 1):
            with subprocess.Popen(lb.command("reload"), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as asking:
                assert asking.stdout is not None
                asking.stdout.readline()
                asking.send_signal(number)
                _, said = asking.communicate(timeout=10)
                assert asking.returncode == (130 if number == signal.SIGINT else -9)
                assert (b"goes on" in said) == (number == signal.SIGINT)
            lb.wait_until(lambda count=count: finished(lb) == count)
            assert generations(lb) == {count + 1}


def test_the_verdict_is_the_last_line_of_text_json_and_terminal_and_counts_what_was_served(tmp_path: Path) -> None:
    with serving(web(), tmp_path) as lb, load(lb.port) as clients:
        done = lb.cli("reload")
        assert done.returncode == 0
        line = done.stdout.splitlines()[-1]
        assert line.startswith("reloaded web to generation 2 in ")
        assert line.endswith(" requests served meanwhile, 0 failed, 0 connections cut")
        assert int(line.split(": ")[1].split()[0]) > 10
        events = [json.loads(line) for line in lb.cli("reload", "--json").stdout.splitlines()]
        assert {event["event"] for event in events} >= {"reload.started", "backend.ready", "backend.stopped"}
        last = events[-1]
        assert last["event"] == "reload.done"
        for name, value in {"pool": "web", "result": "ok", "generation": 3, "from_generation": 2, "failed": 0}.items():
            assert last[name] == value
        assert {"duration_s", "requests", "cut", "websockets_closed"} <= set(last)

        # on a terminal: one live block, and the verdict behind it
        terminal, inside = pty.openpty()
        with subprocess.Popen(lb.command("reload"), stdout=inside, stderr=inside) as asking:
            os.close(inside)
            shown = b""
            with contextlib.suppress(OSError):  # the other end is closed
                while data := os.read(terminal, 65536):
                    shown += data
            os.close(terminal)
            assert asking.wait(20) == 0
        assert b"\x1b[" in shown
        last = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", shown).rstrip().rpartition(b"\n")[2]
        assert last.startswith(b"reloaded web to generation 4 in ")
        assert clients.lost == []


TWO_POOLS = web(more='[pool.api]\ncommand = "$brittle"\n[[route]]\npath = "/api/"\npool = "api"\n').replace(
    'address = "127.0.0.1:$port"', 'address = "127.0.0.1:$port"\npool = "web"'
)


def test_only_the_pools_that_were_named_are_replaced_and_an_unknown_one_is_a_usage_error(tmp_path: Path) -> None:
    with serving(TWO_POOLS, tmp_path) as lb:
        done = lb.cli("reload", "wbe")
        assert done.returncode == 2
        assert "no pool 'wbe'" in done.stderr
        assert "api" in done.stderr
        assert finished(lb) == 0
        untouched = pids(lb, "web")
        done = lb.cli("reload", "api")
        assert done.returncode == 0
        assert done.stdout.splitlines()[-1].startswith("reloaded api to generation 2")
        assert pids(lb, "web") == untouched
        assert lb.cli("reload").stdout.splitlines()[-2].startswith("reloaded web to generation 2")
        assert lb.get("/api/x").json()["generation"] == "3"


def test_config_only_spares_the_backends_unless_their_making_changed(tmp_path: Path) -> None:
    (tmp_path / "more.env").write_text("COLOR=blue\n")
    (tmp_path / "elsewhere").mkdir()
    with serving(web(), tmp_path) as lb:
        before = pids(lb)
        lb.write_config(web(health='path = "/healthz"\ninterval = "200ms"'))
        done = lb.cli("reload", "--config-only")
        assert done.returncode == 0, done.stderr
        assert pids(lb) == before
        assert generations(lb) == {1}
        for generation, making in enumerate(
            ('env = { COLOR = "red" }', 'env_file = "$dir/more.env"', 'directory = "$dir/elsewhere"'), 2
        ):
            before = pids(lb)
            lb.write_config(web(making))
            assert lb.cli("reload", "--config-only").returncode == 0
            assert not before & pids(lb)
            assert generations(lb) == {generation}
            assert lb.get("/env?name=COLOR").body == {2: b"red", 3: b"blue", 4: b"-"}[generation]


def test_config_only_sees_that_a_symlink_points_elsewhere(tmp_path: Path) -> None:
    for name in ("release-1", "release-2"):
        (tmp_path / name).mkdir()
    (tmp_path / "current").symlink_to("release-1")
    with serving(web('directory = "current"'), tmp_path) as lb:
        (tmp_path / "next").symlink_to("release-2")
        (tmp_path / "next").rename(tmp_path / "current")
        assert lb.cli("reload", "--config-only").returncode == 0
        assert generations(lb) == {2}


def test_config_only_applies_a_new_size_live(tmp_path: Path) -> None:
    with serving(web(size=1), tmp_path) as lb:
        before = pids(lb)
        lb.write_config(web(size=3))
        assert lb.cli("reload", "--config-only").returncode == 0
        assert len(pids(lb)) == 3
        assert before < pids(lb)
        lb.write_config(web(size=2))
        with load(lb.port) as clients:
            assert lb.cli("reload", "--config-only").returncode == 0
            clients.wait_more(20)
        assert clients.lost == []
        assert before < pids(lb)
        assert len(pids(lb)) == 2


def test_no_wait_and_timeout_end_the_command_and_not_the_reload(tmp_path: Path) -> None:
    with serving(web(size=1, reload='min_ready = "1s"'), tmp_path) as lb:
        assert lb.cli("reload", "--no-wait").returncode == 0
        assert finished(lb) == 0
        lb.wait_log("reload.finished")
        assert generations(lb) == {2}
        done = lb.cli("reload", "--timeout", "300ms")
        assert done.returncode == 7
        assert "goes on" in done.stderr
        lb.wait_until(lambda: finished(lb) == 2)
        assert generations(lb) == {3}


def test_a_request_in_hand_is_finished_by_the_old_generation(tmp_path: Path) -> None:
    with serving(web(), tmp_path) as lb, lb.connect() as slow:
        slow.sendall(b"GET /slow?s=1.5 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        lb.wait_until(lambda: sum(backend["in_flight"] for backend in lb.backends()) == 1)
        done = lb.cli("reload")
        assert done.returncode == 0
        answer = slow.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b'"generation": "1"' in answer
        assert " 0 failed, 0 connections cut" in done.stdout


def test_a_request_that_outlasts_its_grace_is_cut_and_counted(tmp_path: Path) -> None:
    with (
        serving(web(restart='stop_timeout = "200ms"', more='[pool.web.drain]\nrequest = "300ms"\n'), tmp_path) as lb,
        lb.connect() as slow,
    ):
        slow.sendall(b"POST /slow?s=20 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        lb.wait_until(lambda: sum(backend["in_flight"] for backend in lb.backends()) == 1)
        done = lb.cli("reload", "--json")
        assert done.returncode == 0
        assert json.loads(done.stdout.splitlines()[-1])["cut"] == 1
        assert slow.makefile("rb").readline() == b"HTTP/1.1 504 Gateway Timeout\r\n"


def test_an_upload_and_an_event_stream_in_hand_are_finished_by_the_old_generation(tmp_path: Path) -> None:
    # Goodbyes to streams are spread over their grace: in 30 s, one of 1.5 s would be told too early once in 20 times.
    origin = web(command="$origin --port {port}", size=1, more='[pool.web.drain]\nstream = "1h"')
    with serving(origin, tmp_path) as lb, lb.connect() as upload, lb.connect() as stream:
        upload.sendall(
            b"POST /sum HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\nConnection: close\r\n\r\n" + b"x" * 100_000
        )
        stream.sendall(b"GET /sse?n=10&every=0.15 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        lb.wait_until(lambda: lb.backends()[0]["in_flight"] == 2)
        with subprocess.Popen(lb.command("reload"), stdout=subprocess.PIPE, text=True) as asking:
            lb.wait_log("backend.draining")
            upload.sendall(b"x" * 100_000)
            assert b"200000 " in upload.makefile("rb").read()
            events = stream.makefile("rb").read()
            assert events.count(b"data: 1@1") == 10
            assert events.endswith(b"0\r\n\r\n")
            assert " 0 failed, 0 connections cut" in asking.communicate(timeout=20)[0]


def test_surge_of_a_hundred_percent_replaces_all_at_once(tmp_path: Path) -> None:
    with serving(web(size=3, reload='max_surge = "100%"'), tmp_path) as lb:
        with load(lb.port) as clients:
            assert lb.cli("reload").returncode == 0
        assert clients.lost == []
        log = lb.log()
        assert log.rindex('"backend.starting"') < log.index('"backend.draining"')


@plain_only
def test_listeners_and_pools_come_and_go_with_a_reload(tmp_path: Path) -> None:
    with serving(TWO_POOLS, tmp_path) as lb:
        second = '\n[[listener]]\nname = "second"\naddress = "127.0.0.1:$port2"\npool = "web"\n'
        lb.write_config(
            web(more=second).replace('address = "127.0.0.1:$port"', 'address = "127.0.0.1:$port"\npool = "web"')
        )
        assert lb.cli("reload").returncode == 0
        status = lb.status()
        assert set(status["pools"]) == {"web"}
        assert [listener["name"] for listener in status["listeners"]] == ["public", "second"]
        lb.ports["port"], first = lb.ports["port2"], lb.ports["port"]
        assert lb.get().status == 200
        lb.ports["port"] = first
        lb.write_config(TWO_POOLS)
        assert lb.cli("reload").returncode == 0
        assert lb.get("/api/x").json()["pool"] == "api"
        lb.ports["port"] = lb.ports["port2"]
        with pytest.raises(ConnectionRefusedError):
            lb.connect()
