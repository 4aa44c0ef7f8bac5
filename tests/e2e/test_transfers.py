"""Uploads and downloads over reloads: what moves outlasts `drain.request`, what stalls does not, all of it ends."""

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from time import monotonic

import pytest
from support.serve import Serving, serving
from support.swap import swapping
from support.web import web
from support.ws import dial

LONG = "x" * 1000


def longlived(drain: str, more: str = "") -> str:
    return web(
        'bind = "fd"',
        command="$longlived",
        size=1,
        reload='min_ready = "0s"',
        restart='stop_timeout = "500ms"',
        more=f"[pool.web.drain]\n{drain}\n{more}",
    )


def reload_in_background(lb: Serving) -> tuple[threading.Thread, dict]:
    verdict: dict = {}

    def run() -> None:
        lines = [json.loads(line) for line in lb.api("POST", "/v1/reload", {}).body.splitlines()]
        verdict.update(next(line for line in lines if line["event"] == "reload.done"))

    thread = threading.Thread(target=run)
    thread.start()
    return thread, verdict


def test_a_download_that_keeps_moving_outlasts_the_grace_of_a_request(tmp_path: Path) -> None:
    with serving(longlived('request = "200ms"\ntransfer = "20s"'), tmp_path) as lb:
        for block in (1000, 200_000):
            connection = http.client.HTTPConnection("127.0.0.1", lb.port, timeout=20)
            with closing(connection):
                connection.request("GET", f"/drip?s=1.5&every=0.05&block={block}")
                response = connection.getresponse()
                body = response.read(block)
                thread, verdict = reload_in_background(lb)
                body += response.read()
                assert body == b"d" * (30 * block)
                thread.join()
            assert (verdict["cut"], verdict["failed"]) == (0, 0), block


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_an_upload_that_keeps_moving_outlasts_the_grace_of_a_request(tmp_path: Path, chunked: bool) -> None:
    block, begun = b"u" * 70_000, threading.Event()

    def slowly() -> Iterator[bytes]:
        for number in range(20):
            yield block
            if number == 3:
                begun.set()
            threading.Event().wait(0.07)

    with serving(longlived('request = "200ms"\ntransfer = "20s"'), tmp_path) as lb:
        connection = http.client.HTTPConnection("127.0.0.1", lb.port, timeout=20)
        answers = []

        def upload() -> None:
            headers = {} if chunked else {"Content-Length": str(20 * len(block))}
            connection.request("POST", "/upload", body=slowly(), headers=headers, encode_chunked=chunked)
            answers.append(connection.getresponse().read())

        uploading = threading.Thread(target=upload)
        with closing(connection):
            uploading.start()
            begun.wait()
            lb.wait_until(lambda: lb.backends()[0]["leases"] == {"transfer": 1})
            thread, verdict = reload_in_background(lb)
            uploading.join()
            thread.join()
        assert answers == [str(20 * len(block)).encode()]
        assert (verdict["cut"], verdict["failed"]) == (0, 0)


def test_a_transfer_that_keeps_moving_ends_with_its_own_grace_at_the_latest(tmp_path: Path) -> None:
    with serving(longlived('request = "100ms"\ntransfer = "800ms"'), tmp_path) as lb:
        connection = http.client.HTTPConnection("127.0.0.1", lb.port, timeout=20)
        with closing(connection):
            connection.request("GET", "/drip?s=30&every=0.05")
            response = connection.getresponse()
            response.read(1000)
            thread, verdict = reload_in_background(lb)
            with pytest.raises(http.client.IncompleteRead):
                response.read()
            thread.join()
        assert (verdict["result"], verdict["cut"]) == ("ok", 1)
        assert 0.7 < verdict["duration_s"] < 4


def test_a_stalled_transfer_ends_with_the_grace_of_a_request(tmp_path: Path) -> None:
    """Five seconds without a byte are a stall."""
    with swapping(tmp_path, 'request = "300ms"\ntransfer = "60s"') as stage, stage.lb.connect() as sock:
        sock.sendall(b"GET /stalls HTTP/1.1\r\nHost: test\r\n\r\n")
        stage.backend.peer().send(b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + LONG.encode())
        data = b""
        while len(data) < 1000:
            data += sock.recv(65536)
        stalled = monotonic()
        with stage.reload() as verdict:
            while more := sock.recv(65536):
                data += more
        assert 4.5 < monotonic() - stalled < 9
        assert data.endswith(LONG.encode())
        assert verdict["cut"] == 1


def test_a_request_that_outlasts_its_grace_is_told_so(tmp_path: Path) -> None:
    """503 where it may be sent again, 504 where it may not."""
    with serving(longlived('request = "300ms"'), tmp_path) as lb:
        answers = {}

        def ask(method: str) -> None:
            answers[method] = lb.request(method, "/slow?s=30")

        asking = [threading.Thread(target=ask, args=(method,)) for method in ("GET", "POST")]
        for thread in asking:
            thread.start()
        lb.wait_until(lambda: lb.backends()[0]["leases"] == {"request": 2})
        thread, verdict = reload_in_background(lb)
        for one in (*asking, thread):
            one.join()
        assert (answers["GET"].status, answers["POST"].status) == (503, 504)
        assert answers["GET"].headers["Retry-After"]
        assert answers["POST"].headers["Retry-After"] is None
        assert verdict["cut"] == 2


def test_status_tells_the_kinds_apart_and_what_a_draining_backend_still_has(tmp_path: Path) -> None:
    drain = 'request = "20s"\ntransfer = "20s"\nstream = "20s"\nwebsocket = "20s"\ntcp = "20s"'
    config = longlived(drain, '[[listener]]\nname = "raw"\naddress = "127.0.0.1:$port2"\nmode = "tcp"\npool = "web"')
    with serving(config, tmp_path) as lb:
        clients = [lb.connect() for _ in range(3)]
        for client, path in zip(clients, ("slow?s=1.5", "sse", "drip?s=1.5&every=0.05"), strict=True):
            client.sendall(f"GET /{path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        websocket = dial(lb.port)
        raw = dial(lb.ports["port2"])
        one_of_each = {"request": 1, "stream": 1, "transfer": 1, "websocket": 1, "tcp": 1}
        lb.wait_until(lambda: lb.backends()[0]["leases"] == one_of_each)
        assert lb.backends()[0]["in_flight"] == 5

        thread, verdict = reload_in_background(lb)
        lb.wait_log('"backend.draining"')
        shown = lb.cli("status").stdout
        old = next(line for line in shown.splitlines() if "draining" in line)
        assert "websocket" in old
        assert "at most" in old
        left_s = next(one for one in lb.backends() if one["state"] == "draining")["drain_left_s"]
        assert 10 < left_s <= 25
        raw.sock.close()
        websocket.sock.close()
        for client in clients[1:]:
            client.close()
        thread.join()
        clients[0].close()
        assert (verdict["cut"], verdict["failed"]) == (0, 0)
