"""The control socket of a running lbproxy: only its owner may speak, and nothing said on it stops it or its clients."""

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic

import psutil
import pytest
from support.load import load
from support.serve import Serving, serving
from support.web import web

SIZE_1 = web(size=1)
PROMPT_S = 3.0  # generous: the machine may be busy

HUGE_HEAD = b"GET /v1/status HTTP/1.1\r\nX: " + b"x" * 1_000_000
MANY_FIELDS = b"GET /v1/status HTTP/1.1\r\n" + b"X: y\r\n" * 5000 + b"\r\n"
HUGE_BODY = b"POST /v1/reload HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n" + b"x" * 1_000_000
HUGE_CHUNKS = (
    b"POST /v1/reload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    + (b"40\r\n" + b"x" * 64 + b"\r\n") * 10_000
)
DEEP_JSON = b"[" * 60_000


@pytest.fixture(scope="module")
def lb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(SIZE_1, tmp_path_factory.mktemp("control")) as running:
        yield running
        assert "Traceback" not in running.log()
        assert running.backends()[0]["restarts"] == 0


@contextlib.contextmanager
def connected(lb: Serving) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(30)
        client.connect(lb.control)
        yield client


def until_closed(client: socket.socket) -> bytes:
    answer = b""
    with contextlib.suppress(ConnectionResetError):
        while data := client.recv(65536):
            answer += data
    return answer


def post(body: bytes) -> bytes:
    return b"POST /v1/reload HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def assert_prompt(lb: Serving) -> None:
    begun = monotonic()
    assert lb.api("GET", "/v1/status").status == 200
    assert monotonic() - begun < PROMPT_S


def test_nobody_but_its_owner_can_open_it(lb: Serving) -> None:
    found = os.stat(lb.control)
    assert found.st_mode & 0o7777 == 0o600
    assert found.st_uid == os.geteuid()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_another_user_is_refused_even_if_the_mode_lets_him_in(lb: Serving) -> None:
    script = (
        "import os, socket, sys; os.setuid(65534); s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
        "s.sendall(b'POST /v1/stop HTTP/1.1\\r\\nHost: a\\r\\nContent-Length: 0\\r\\n\\r\\n'); print(s.recv(65536))"
    )
    directory = os.path.dirname(lb.control)
    os.chmod(directory, 0o755)
    os.chmod(lb.control, 0o666)
    try:
        done = subprocess.run(
            [sys.executable, "-c", script, lb.control], capture_output=True, text=True, check=False, timeout=20
        )
    finally:
        os.chmod(lb.control, 0o600)
        os.chmod(directory, 0o700)
    assert "HTTP/1.1 403" in done.stdout, done.stderr
    assert "user 65534 may not control this lbproxy" in done.stdout
    assert_prompt(lb)


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200, b"400"),  # TLS
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"40"),
        (b"\x00" * 100_000, b"400"),
        (b"reload\n", b"400"),
        (b"GET /v1/status\r\n\r\n", b"400"),
        (b"GET /v1/status HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", b"400"),
        (b"GET //[ HTTP/1.1\r\nHost: a\r\n\r\n", b"404"),
        (b"BREW /v1/reload HTTP/1.1\r\nHost: a\r\n\r\n", b"405"),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", b"501"),
        (b"GET /v1/logs?n=99999999999999 HTTP/1.1\r\nHost: a\r\n\r\n", b"400"),
        (post(b"{"), b"400"),
        (post(b'{"pools": {}}'), b"400"),
        (post(b'{"pools": ["\\ud800"]}'), b"404"),
        (post(b"NaN"), b"400"),
        (post(b"\xff\xfe"), b"400"),
        (post(DEEP_JSON), b"400"),
        (HUGE_HEAD, b"431"),
        (MANY_FIELDS, b"431"),
        (HUGE_BODY, b"413"),
        (HUGE_CHUNKS, b"413"),
    ],
)
def test_rubbish_is_refused_and_the_next_one_answered(lb: Serving, said: bytes, status: bytes) -> None:
    with connected(lb) as client:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            client.sendall(said)
            client.shutdown(socket.SHUT_WR)
        answer = until_closed(client)
    assert answer.startswith(b"HTTP/1.1 " + status), answer[:300]
    body = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert set(body) == {"error", "exit_code"}
    assert_prompt(lb)
    assert lb.backends()[0]["generation"] == 1, "nothing was reloaded"


def test_someone_who_says_a_byte_at_a_time_holds_up_nobody(lb: Serving) -> None:
    with contextlib.ExitStack() as opened:
        slow = [opened.enter_context(connected(lb)) for _ in range(10)]
        for byte in b"GET /v1/status HTTP/1.1\r\nHost: a\r\n\r\n":
            for client in slow:
                client.sendall(bytes([byte]))
            if byte in b"\r\n":
                assert_prompt(lb)
        assert all(until_closed(client).startswith(b"HTTP/1.1 200") for client in slow)


@pytest.mark.soak
def test_someone_who_never_finishes_is_told_so_after_ten_seconds(lb: Serving) -> None:
    with connected(lb) as client:
        client.sendall(b"GET /v1/status HTTP/1.1\r\n")
        assert until_closed(client).startswith(b"HTTP/1.1 408")


def test_hundreds_that_say_nothing_keep_nobody_out(lb: Serving) -> None:
    with contextlib.ExitStack() as opened:
        for _ in range(300):
            opened.enter_context(connected(lb))
        begun = monotonic()
        assert lb.cli("status", "-q").returncode == 0
        assert monotonic() - begun < PROMPT_S


def test_many_questions_at_once_are_all_answered(lb: Serving) -> None:
    with ThreadPoolExecutor(50) as askers:
        answers = list(askers.map(lambda _: lb.api("GET", "/v1/status"), range(200)))
    assert {answer.status for answer in answers} == {200}


def test_clients_that_leave_at_any_point_leave_nothing_behind(lb: Serving) -> None:
    whole = b"GET /v1/logs?follow=1 HTTP/1.1\r\nHost: a\r\n\r\n"
    control = psutil.Process(lb.pid)
    before = control.num_fds()
    for cut in range(len(whole) + 1):
        with connected(lb) as client:
            client.sendall(whole[:cut])
    lb.wait_until(lambda: control.num_fds() <= before + 2)


def test_one_reload_of_many_at_once_begins_and_the_others_are_told_busy(tmp_path: Path) -> None:
    with serving(web(size=1, reload='min_ready = "500ms"'), tmp_path) as lb, load(lb.port, clients=2) as clients:
        with ThreadPoolExecutor(20) as askers:
            answers = list(askers.map(lambda _: lb.api("POST", "/v1/reload", {}), range(20)))
        assert sorted(answer.status for answer in answers) == [200] + [409] * 19
        assert lb.backends()[0]["generation"] == 2
        clients.wait_more(10)
        assert clients.lost == []


def test_a_reload_goes_on_though_its_client_reads_nothing(tmp_path: Path) -> None:
    with serving(web(size=4), tmp_path) as lb, connected(lb) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        client.sendall(post(b"{}"))
        lb.wait_log('"reload.finished"')
        assert {one["generation"] for one in lb.backends()} == {2}
        assert lb.cli("status", "-q").returncode == 0
