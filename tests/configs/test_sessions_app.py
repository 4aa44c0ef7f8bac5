"""configs/sessions_app.py with a real Redis: people stay logged in over a reload, a crash and a Redis that was away."""

import contextlib
import http.client
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import psutil
import pytest
from support.ports import free_port
from support.serve import Serving, serving
from support.web import web

APP = Path(__file__).parents[2] / "configs" / "sessions_app.py"


@contextlib.contextmanager
def redis(port: int, directory: Path) -> Iterator[None]:
    """Keeps its data in `directory` when it ends."""
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory), "--save", "3600 1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any("Ready to accept connections" in line for line in process.stdout)
        yield
        process.terminate()
        process.stdout.read()


class Person:
    """A browser: it keeps its cookie."""

    def __init__(self, lb: Serving) -> None:
        self._lb = lb
        self.cookie = ""

    def ask(self, path: str = "/", **form: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self._lb.port, timeout=20)
        headers = {"Cookie": self.cookie} if self.cookie else {}
        with contextlib.closing(connection):
            if path == "/":
                connection.request("GET", path, headers=headers)
            else:
                headers["Content-Type"] = "application/x-www-form-urlencoded"
                connection.request("POST", path, urlencode(form), headers)
            response = connection.getresponse()
            if given := response.headers["Set-Cookie"]:
                assert "HttpOnly; SameSite=Lax" in given
                self.cookie = given.partition(";")[0]
            return response.status, response.read().decode()


def generation(page: str) -> str:
    return re.search(r"generation (\d+)", page)[1]


@pytest.mark.peer("redis-server")
def test_people_stay_logged_in_whatever_happens_to_backends(tmp_path: Path) -> None:
    port = free_port()
    config = web(f'env = {{ REDIS_URL = "redis://127.0.0.1:{port}/0" }}', command=f"$python {APP} --port {{port}}")
    with redis(port, tmp_path), serving(config, tmp_path) as lb:
        ada, bob, eve = Person(lb), Person(lb), Person(lb)
        assert ada.ask("/login", name="Ada <b>")[0] == 303
        assert bob.ask("/login", name="Bob")[0] == 303
        assert "hello Ada &lt;b&gt;, visit 1" in ada.ask()[1]
        assert "hello Bob, visit 1" in bob.ask()[1]
        assert "nobody is logged in" in eve.ask()[1]
        assert eve.ask("/login", name=" ")[0] == 400

        assert lb.cli("reload").returncode == 0
        status, page = ada.ask()
        assert (status, generation(page)) == (200, "2")
        assert "hello Ada &lt;b&gt;, visit 2" in page

        for backend in lb.backends():
            psutil.Process(backend["pid"]).kill()
        assert "hello Bob, visit 2" in bob.ask()[1], "the request waits for a backend; the session is in Redis"
        assert bob.ask("/logout")[0] == 303
        assert "nobody is logged in" in bob.ask()[1]
        assert "hello Ada &lt;b&gt;, visit 3" in ada.ask()[1]
        lb.wait_ready()

        with socket.create_connection(("127.0.0.1", port)) as asking:
            asking.sendall(b"SHUTDOWN SAVE\r\n")
            assert asking.recv(100) == b""
        assert ada.ask()[0] == 503
        assert lb.status()["pools"]["web"]["ready"] == 2, "no backend is to blame"
        with redis(port, tmp_path):
            assert "hello Ada &lt;b&gt;, visit 4" in ada.ask()[1]
