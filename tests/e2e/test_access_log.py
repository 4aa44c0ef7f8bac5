"""Access logs, and every log's worst days: rotated, full, stalled, closed."""

import fcntl
import json
import os
import re
import signal
import subprocess
from pathlib import Path

from support.load import load
from support.serve import Serving, serving
from support.web import web

COMBINED = re.compile(
    r'127\.0\.0\.1 - - \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d \+0000\] "([^"]*)" (\d{3}) (\d+) "([^"]*)" "([^"]*)"'
)


def with_log(text: str, **texts: str) -> str:
    return web(size=1, more=f"[log]\n{text}\n", **texts)


def lines_of(lb: Serving, name: str = "access.log") -> list[str]:
    path = lb.config.parent / name
    return path.read_text().splitlines() if path.exists() else []


def test_combined_and_json_say_what_they_promise_and_a_reload_changes_where_and_what(tmp_path: Path) -> None:
    with serving(with_log('access_path = "one.log"'), tmp_path) as lb:
        # what every tool reads, with hostile bytes escaped
        lb.get("/whoami?a=1", {"Referer": "http://b/", "User-Agent": 'evil" 200 1 "\x80'})
        lb.get("/nothing")
        lb.wait_until(lambda: len(lines_of(lb, "one.log")) == 2)
        first = COMBINED.fullmatch(lines_of(lb, "one.log")[0])
        assert first is not None, lines_of(lb, "one.log")
        assert first[1] == "GET /whoami?a=1 HTTP/1.1"
        assert first[2] == "200"
        assert int(first[3]) > 10
        assert first[4] == "http://b/"
        assert first[5] == r"evil\x22 200 1 \x22\x80"
        assert lb.cli("logs", "access", "-n", "1").stdout.rstrip("\n") == lines_of(lb, "one.log")[1]

        lb.write_config(with_log('access = "json"\naccess_path = "access.log"'))
        assert lb.cli("reload", "--config-only").returncode == 0
        answer = lb.request("POST", "/sum", {"Host": "a.example"}, b"12345")
        lb.wait_until(lambda: lines_of(lb))
        assert len(lines_of(lb, "one.log")) == 2
        entry = json.loads(lines_of(lb)[0])
        expected = {
            "method": "POST",
            "host": "a.example",
            "path": "/sum",
            "status": 200,
            "request_bytes": 5,
            "response_bytes": len(answer.body),
            "backend": "web.1",
            "generation": 1,
            "client": "127.0.0.1",
            "request_id": answer.headers["X-Request-ID"],
        }
        assert {key: entry[key] for key in expected} == expected
        assert 0 < entry["duration_s"] < 5
        assert entry["time"].endswith("Z")

        # every 5xx says why, to the client, the access log and the events
        answer = lb.request("POST", "/die", body=b"x")
        assert answer.status == 502
        lb.wait_log('"exchange.failed"')
        (event,) = [json.loads(line) for line in lb.log().splitlines() if '"exchange.failed"' in line]
        lb.wait_until(lambda: len(lines_of(lb)) == 2)
        died = json.loads(lines_of(lb)[1])
        assert died["status"] == 502
        assert event["reason"] == died["reason"]
        assert event["reason"].encode() in answer.body
        assert event["request_id"] == died["request_id"] == answer.headers["X-Request-ID"]
        assert (event["backend"], event["status"], event["error"]) == ("web.1@1", 502, died["error"])


def test_off_is_off_and_a_command_whose_output_is_closed_ends_quietly(tmp_path: Path) -> None:
    with serving(with_log('access = "off"'), tmp_path) as lb:
        lb.get("/whoami")
        asked = subprocess.run(
            ["sh", "-c", '"$@" | true', "sh", *lb.command("status")], capture_output=True, check=False, timeout=20
        )
        assert b"Traceback" not in asked.stderr
        assert lb.stop() == 0
        assert "/whoami" not in lb.log()


def test_usr1_reopens_the_file_and_no_line_is_lost(tmp_path: Path) -> None:
    with serving(with_log('access_path = "access.log"', workers=2), tmp_path) as lb:
        with load(lb.port, keep_alive=False) as clients:
            clients.wait_more(20)
            for number in range(3):
                (tmp_path / "access.log").rename(tmp_path / f"access.log.{number}")
                lb.signal(signal.SIGUSR1)
                lb.wait_until(lambda: (tmp_path / "access.log").exists())
                clients.wait_more(20)
        assert clients.lost == []
        assert lb.stop() == 0
        files = [lines_of(lb, path.name) for path in tmp_path.glob("access.log*")]
        assert sum(map(len, files)) == clients.answered
        assert all(COMBINED.fullmatch(line) for lines in files for line in lines), "whole lines"


def test_a_full_disk_loses_lines_and_no_requests(tmp_path: Path) -> None:
    with serving(with_log('access_path = "/dev/full"'), tmp_path) as lb, load(lb.port) as clients:
        clients.wait_more(200)
        assert clients.lost == []
        assert lb.cli("reload").returncode == 0
        lb.wait_log('"log.dropped"')
        assert lb.cli("status", "-q").returncode == 0
        assert clients.lost == []


def test_standard_output_and_error_on_a_full_disk_disturb_nobody(tmp_path: Path) -> None:
    with serving(web(size=1), tmp_path, wait=False, output="/dev/full") as lb:
        lb.wait_ready()
        with load(lb.port) as clients:
            clients.wait_more(100)
            assert lb.cli("reload").returncode == 0
        assert clients.lost == []


def test_a_stalled_reader_of_the_log_stalls_nobody(tmp_path: Path) -> None:
    """As `lbproxy serve | something` that has stopped reading."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    try:
        with serving(web(size=1), tmp_path, wait=False, output=f"/dev/fd/{writer}") as lb:
            lb.wait_ready()
            with load(lb.port) as clients:
                clients.wait_more(500)
                assert lb.cli("reload").returncode == 0
                clients.wait_more(100)
            assert clients.lost == []
            assert lb.get("/say?text=flood&times=20000").body == b"said"
            assert lb.cli("status", "-q").returncode == 0
            lb.signal(signal.SIGTERM)
            assert lb.process is not None
            assert lb.process.wait(10) == 0
    finally:
        os.close(reader)
        os.close(writer)


def test_a_closed_pipe_for_the_log_is_no_reason_to_die(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    try:
        with serving(web(size=1), tmp_path, wait=False, output=f"/dev/fd/{writer}") as lb:
            lb.wait_ready()
            os.close(reader)
            with load(lb.port) as clients:
                clients.wait_more(50)
                assert lb.cli("reload").returncode == 0
            assert clients.lost == []
    finally:
        os.close(writer)


def test_among_json_events_on_one_stream_access_lines_are_json_too(tmp_path: Path) -> None:
    output = tmp_path / "everything"
    with serving(web(size=1), tmp_path, output=str(output)) as lb:
        lb.get("/whoami")
        lb.wait_until(lambda: '"event":"access"' in output.read_text())
        entries = [json.loads(line) for line in output.read_text().splitlines()]
        (access,) = [entry for entry in entries if entry["event"] == "access"]
        assert (access["path"], access["status"], access["backend"]) == ("/whoami", 200, "web.1")
