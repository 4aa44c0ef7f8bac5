"""configs/demo_app.py by itself: what the README's first command shows, and how it ends."""

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
from support.apps import ROOT
from support.ports import free_port
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

STOPS_WITHIN_S = 8


class Demo:
    def __init__(self, port: int, process: "subprocess.Popen[bytes]") -> None:
        self.port = port
        self.process = process

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)

    def get(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
        with closing(self.connection()) as connection:
            connection.request("GET", path, headers=headers or {})
            response = connection.getresponse()
            return response.status, response.read()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)


@contextmanager
def running() -> Iterator[Demo]:
    port = free_port()
    command = [sys.executable, str(ROOT / "configs" / "demo_app.py")]
    environment = {**os.environ, "PORT": str(port), "LBPROXY_SLOT": "3", "LBPROXY_GENERATION": "7"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"slot 3, generation 7: on port %d\n" % port
            yield Demo(port, process)
            demo_ends = process.poll() is None
            if demo_ends:
                process.send_signal(signal.SIGTERM)
            assert process.wait(STOPS_WITHIN_S) == 0
        finally:
            process.kill()


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with running() as demo:
        yield demo


def test_the_page_shows_slot_generation_and_pid(demo: Demo) -> None:
    status, page = demo.get("/")
    assert status == 200
    for part in ("slot>3<", "generation>7<", f"pid>{demo.process.pid}<"):
        assert part.encode() in page


def test_whoami_says_the_same_as_json(demo: Demo) -> None:
    assert json.loads(demo.get("/whoami")[1]) == {"slot": "3", "generation": "7", "pid": demo.process.pid}


def test_the_probe_is_answered(demo: Demo) -> None:
    assert demo.get("/healthz")[0] == 200


def test_a_slow_answer_comes_late_and_whole(demo: Demo) -> None:
    begun = time.monotonic()
    assert demo.get("/slow?s=0.2")[0] == 200
    assert time.monotonic() - begun >= 0.2


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_comes_back_in_either_framing(demo: Demo, chunked: bool) -> None:
    body = bytes(range(256)) * 500
    with closing(demo.connection()) as connection:
        for _ in range(2):  # and the connection can be kept
            parts = iter([body[:1000], body[1000:]])
            connection.request("POST", "/echo", parts if chunked else body, encode_chunked=chunked)
            response = connection.getresponse()
            assert (response.status, response.read()) == (200, body)


def test_as_many_bytes_come_as_were_asked_for(demo: Demo) -> None:
    assert len(demo.get("/big?bytes=200001")[1]) == 200_001


@pytest.mark.parametrize(("path", "status"), [("/slow?s=soon", 400), ("/nowhere", 404), ("/ws", 426)])
def test_what_makes_no_sense_is_said_to_make_none(demo: Demo, path: str, status: int) -> None:
    assert demo.get(path)[0] == status


def test_the_clock_goes_on_where_the_client_left_off(demo: Demo) -> None:
    last = int(time.time()) - 3
    with closing(demo.connection()) as connection:
        connection.request("GET", "/sse", headers={"Last-Event-ID": str(last)})
        response = connection.getresponse()
        assert response.headers["Content-Type"] == "text/event-stream"
        lines = [response.readline() for _ in range(9)]
    assert lines[::3] == [b"id: %d\n" % (last + number) for number in (1, 2, 3)]


def test_every_websocket_message_comes_back(demo: Demo) -> None:
    with connect(f"ws://127.0.0.1:{demo.port}/ws") as websocket:
        for message in ("", "grüß", "x" * 70_000, b"\x00\xff" * 200):
            websocket.send(message)
            assert websocket.recv() == message
        websocket.ping().wait()
        websocket.send(["in ", "three ", "parts"])
        assert websocket.recv() == "in three parts"


def test_term_lets_requests_finish_and_says_goodbye_to_the_rest() -> None:
    with running() as demo, closing(demo.connection()) as slow, closing(demo.connection()) as idle:
        idle.request("GET", "/whoami")
        idle.getresponse().read()
        slow.request("GET", "/slow?s=0.5")
        with connect(f"ws://127.0.0.1:{demo.port}/ws") as websocket:
            websocket.send("here")
            websocket.recv()
            demo.stop()
            with pytest.raises(ConnectionClosed) as closed:
                websocket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001
        assert slow.getresponse().read().startswith(b"0.5 s later")
        assert demo.process.wait(STOPS_WITHIN_S) == 0
