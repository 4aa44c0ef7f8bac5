"""WebSockets of well-known clients and servers over a real reload: each sees a clean 1001 and can come back."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from support.apps import ROOT
from support.serve import Serving, serving
from support.web import web
from websockets.exceptions import ConnectionClosed
from websockets.frames import Close
from websockets.sync.client import connect

APPS = ROOT / "tests" / "support" / "apps"
UVICORN = f"{sys.executable} -m uvicorn --app-dir {APPS} starlette_app:app --log-level warning --fd 3"
SETTINGS = {"size": 1, "workers": 1, "reload": 'min_ready = "0s"', "more": '[pool.web.drain]\nwebsocket = "200ms"'}


@pytest.fixture
def ws_package() -> None:
    """`npm install --no-save ws@8` in the repository's directory; .ci/run does it."""
    if not (ROOT / "node_modules" / "ws").is_dir():
        (pytest.fail if os.environ.get("LBPROXY_CI") else pytest.skip)("node_modules/ws is not installed")


@contextmanager
def node_client(lb: Serving) -> Iterator[list[dict]]:
    """Node's WebSocket client, whose events are in the list as they come."""
    command = ["node", "--no-warnings", "--experimental-websocket", str(APPS / "ws_client.js")]
    events: list[dict] = []
    told = threading.Event()
    with subprocess.Popen([*command, f"ws://127.0.0.1:{lb.port}/ws"], stdout=subprocess.PIPE, text=True) as client:

        def read() -> None:
            for line in client.stdout:
                events.append(json.loads(line))
                if events[-1]["event"] == "message":
                    told.set()

        reading = threading.Thread(target=read)
        reading.start()
        try:
            assert told.wait(10), events
            yield events
            client.wait(10)
        finally:
            client.kill()
            reading.join()


def test_the_websockets_library_and_uvicorn_with_starlette(tmp_path: Path) -> None:
    """With permessage-deflate, which passes untouched."""
    with serving(web('bind = "fd"', command=UVICORN, **SETTINGS), tmp_path) as lb:
        url = f"ws://127.0.0.1:{lb.port}/ws"
        with connect(url) as socket:
            assert "permessage-deflate" in socket.response.headers["Sec-WebSocket-Extensions"]
            text = "a long text, " * 20_000
            socket.send(text)
            assert socket.recv() == text
            reload = threading.Thread(target=lb.api, args=("POST", "/v1/reload", {}))
            reload.start()
            with pytest.raises(ConnectionClosed) as closed:
                socket.recv(timeout=10)
            assert closed.value.rcvd == Close(1001, "going away")
            assert closed.value.rcvd_then_sent
            reload.join()
        with connect(url) as socket:
            socket.send("again")
            assert socket.recv() == "again"
        lb.wait_log('"cut":0,"websockets_closed":1')


@pytest.mark.peer("node")
@pytest.mark.usefixtures("ws_package")
def test_the_client_of_node_and_its_package_ws(tmp_path: Path) -> None:
    config = web('bind = "fd"', command=f"node {APPS / 'ws_server.js'}", **SETTINGS)
    with serving(config, tmp_path) as lb:
        with node_client(lb) as events:
            assert lb.api("POST", "/v1/reload", {}).status == 200
        assert [event["event"] for event in events] == ["open", "message", "close"] * 2
        assert events[1]["length"] == 300_000
        assert events[2] == {"event": "close", "code": 1001, "reason": "going away", "clean": True}
        assert events[5] == {"event": "close", "code": 1000, "reason": "done", "clean": True}
        lb.wait_log('"cut":0,"websockets_closed":1')


@pytest.mark.peer("node")
@pytest.mark.usefixtures("ws_package")
def test_many_clients_of_node_s_ws_that_is_talking_all_the_time(tmp_path: Path) -> None:
    config = web('bind = "fd"', command=f"node {APPS / 'ws_server.js'}", **SETTINGS)
    closes: list[Close | None] = []
    numbers: list[list[int]] = []

    def listen(url: str) -> None:
        with connect(url) as socket:
            socket.send("push 5")
            heard: list[int] = []
            numbers.append(heard)
            with suppress(ConnectionClosed):
                while True:
                    heard.append(int(str(socket.recv()).split()[1]))
            closes.append(socket.protocol.close_rcvd)

    with serving(config, tmp_path) as lb:
        threads = [threading.Thread(target=listen, args=(f"ws://127.0.0.1:{lb.port}/",)) for _ in range(10)]
        for thread in threads:
            thread.start()
        lb.wait_until(lambda: len(numbers) == 10 and all(len(heard) > 20 for heard in numbers))
        assert lb.api("POST", "/v1/reload", {}).status == 200
        for thread in threads:
            thread.join()
        assert closes == [Close(1001, "going away")] * 10
        assert all(heard == list(range(1, len(heard) + 1)) for heard in numbers)
