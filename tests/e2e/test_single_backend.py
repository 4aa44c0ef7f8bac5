"""A pool of one: what clients see while it restarts, dies in their request, is slow, or never comes."""

import json
import os
import signal
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from time import monotonic

from support.load import load
from support.serve import Answer, serving
from support.web import web


def state(lb) -> str:
    return lb.backends()[0]["state"]


def test_a_request_that_arrives_while_the_only_backend_restarts_is_answered(tmp_path: Path) -> None:
    with serving(web(size=1), tmp_path) as lb, ThreadPoolExecutor() as others:
        os.kill(lb.backends()[0]["pid"], signal.SIGKILL)
        lb.wait_until(lambda: state(lb) != "ready")
        waiting: list[Future[Answer]] = [others.submit(lb.get, "/whoami") for _ in range(10)]
        answers = [future.result() for future in waiting]
        assert [answer.status for answer in answers] == [200] * 10
        assert lb.backends()[0]["restarts"] == 1


def test_a_pool_of_one_is_reloaded_without_a_lost_request(tmp_path: Path) -> None:
    with serving(web(size=1), tmp_path) as lb:
        with load(lb.port, keep_alive=False) as clients:
            assert lb.cli("reload").returncode == 0
            assert lb.cli("reload").returncode == 0
        assert clients.lost == []


def test_a_request_before_the_first_backend_is_ready_waits_for_it(tmp_path: Path) -> None:
    with serving(web(size=1), tmp_path, wait=False) as lb:
        lb.wait_log("worker.started")
        lb.wait_log("serve.started")
        assert lb.get("/whoami").status == 200


def test_a_queue_that_is_full_or_too_old_answers_503_with_retry_after(tmp_path: Path) -> None:
    limits = '[pool.web.limits]\nqueue = { size = 2, timeout = "700ms" }\n'
    silent = 'env = { BREAK = "silent" }'
    with serving(web(silent, size=1, more=limits), tmp_path, wait=False) as lb, ThreadPoolExecutor() as others:
        lb.wait_log("worker.started")
        lb.wait_until(lambda: lb.status()["workers"][0]["state"] == "serving")
        begun = monotonic()
        answers = [future.result() for future in [others.submit(lb.get) for _ in range(5)]]
        assert [answer.status for answer in answers] == [503] * 5
        assert 0.6 < monotonic() - begun < 4
        for answer in answers:
            assert int(answer.headers["Retry-After"]) >= 1
            assert "; error=" in answer.headers["Proxy-Status"]
        assert lb.cli("status", "-q").returncode == 4
        lb.write_config(web(size=1))
        assert lb.cli("reload").returncode == 0
        assert lb.get().status == 200


def test_a_backend_that_dies_before_it_answers_is_a_502(tmp_path: Path) -> None:
    with serving(web(size=1), tmp_path) as lb:
        answer = lb.request("POST", "/die", body=b"x")
        assert answer.status == 502
        assert "; error=" in answer.headers["Proxy-Status"]
        assert answer.headers["X-Request-ID"]
        assert lb.get("/whoami").status == 200  # waits for its successor


def test_a_backend_that_dies_in_the_middle_of_a_body_is_an_honest_cut(tmp_path: Path) -> None:
    with serving(web(size=1), tmp_path) as lb, lb.connect() as client:
        client.sendall(b"GET /half HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = b""
        try:
            while data := client.recv(65536):
                answer += data
        except ConnectionResetError:
            pass
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert b"Content-Length: 100000" in head
        assert set(body) <= set(b"x")
        assert len(body) <= 50_000


def test_a_backend_slower_than_the_response_timeout_is_a_504(tmp_path: Path) -> None:
    with serving(web(size=1, more='[pool.web.timeouts]\nresponse = "400ms"\n'), tmp_path) as lb:
        begun = monotonic()
        answer = lb.get("/slow?s=3", {"Accept": "application/json"})
        assert answer.status == 504
        assert 0.3 < monotonic() - begun < 2.5
        assert "; error=" in answer.headers["Proxy-Status"]
        json.loads(answer.body)


def test_a_backend_that_exits_after_its_answer_costs_no_request(tmp_path: Path) -> None:
    with serving(web(size=1), tmp_path) as lb:
        assert lb.get("/ends").body == b"bye"
        # While it is on its way out the kernel still takes connections for it: what is sent on such a one is lost, and
        # rightly a 502 (DESIGN.md 7, 6). Once it is gone, who asks waits for the next one.
        lb.wait_log("exit code 7")
        assert lb.get("/whoami").status == 200
        assert "going down, as was asked for" in lb.cli("logs").stdout


def test_a_client_that_hangs_up_frees_its_backend(tmp_path: Path) -> None:
    with serving(web(size=1, more='[log]\naccess = "json"\n'), tmp_path) as lb:
        with lb.connect() as client:
            client.sendall(b"GET /slow?s=30 HTTP/1.1\r\nHost: a\r\n\r\n")
            lb.wait_until(lambda: lb.backends()[0]["in_flight"] == 1)
        lb.wait_until(lambda: lb.backends()[0]["in_flight"] == 0, 4)
        lb.wait_log('"status":499')


def test_a_backend_whose_probes_fail_serves_on_when_it_is_the_last(tmp_path: Path) -> None:
    """A bad probe must not be an outage: all live ones stay, and `status` says degraded."""
    script = tmp_path / "probe-answer"
    health = 'path = "/answer"\ninterval = "100ms"\nfall = 2\nrise = 1'
    command = f"$python $dir/app.py {script}"
    (tmp_path / "app.py").write_text(FLAKY)
    script.write_text("200")
    with serving(web(size=2, command=command, health=health), tmp_path) as lb:
        script.write_text("500")
        lb.wait_until(lambda: {one["state"] for one in lb.backends()} == {"unhealthy"})
        assert lb.get().status == 200
        assert lb.cli("status", "-q").returncode == 4
        script.write_text("200")
        lb.wait_until(lambda: {one["state"] for one in lb.backends()} == {"ready"})
        assert lb.cli("status", "-q").returncode == 0
        assert "healthy again" in lb.log() or "backend.healthy" in lb.log()


FLAKY = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args): pass
    def do_GET(self):
        status = int(open(sys.argv[1]).read() or 500) if self.path == "/answer" else 200
        self.send_response(status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


def test_connections_per_backend_are_limited_and_the_others_wait(tmp_path: Path) -> None:
    clients = 20
    limits = "[pool.web.limits]\nconnections = 2\n"
    with serving(web(size=1, more=limits), tmp_path) as lb, ThreadPoolExecutor(clients) as others:
        most = 0
        done = threading.Event()

        def watch() -> None:
            nonlocal most
            while not done.wait(0.02):
                most = max(most, lb.backends()[0]["in_flight"])

        watching = threading.Thread(target=watch)
        watching.start()
        answers = list(others.map(lambda _: lb.get("/slow?s=0.1").status, range(clients)))
        done.set()
        watching.join()
        assert answers == [200] * clients
        assert most <= 2
