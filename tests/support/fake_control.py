"""A control socket with canned answers: a real HTTP server on a real unix socket, in a thread."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any


class Handler(BaseHTTPRequestHandler):
    """The interface of an answer: it sends JSON, or lines one by one."""

    protocol_version = "HTTP/1.1"
    server: "FakeControl"

    def do_GET(self) -> None:
        self._answer({})

    def do_POST(self) -> None:
        self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _answer(self, values: dict[str, Any]) -> None:
        path, _, _query = self.path.partition("?")
        self.server.asked.append((self.command, self.path, values))
        self.close_connection = True
        answer = self.server.answers[f"{self.command} {path}"]
        if callable(answer):
            answer(self)
        else:
            self.send(200, answer)

    def send(self, status: int, values: Any) -> None:
        body = json.dumps(values).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def begin(self) -> None:
        """A stream of lines: chunked, as control sends it."""
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("Connection", "close")
        self.end_headers()

    def line(self, values: dict[str, Any]) -> None:
        self.raw(json.dumps(values).encode() + b"\n")

    def raw(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def end(self) -> None:
        self.wfile.write(b"0\r\n\r\n")

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *args: Any) -> None:
        pass


Answer = dict[str, Any] | Callable[[Handler], None]


class FakeControl(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.answers: dict[str, Answer] = {}
        self.asked: list[tuple[str, str, dict[str, Any]]] = []
        super().__init__(self.path, Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a client that hangs up."""


def lines(*values: dict[str, Any]) -> Callable[[Handler], None]:
    def answer(handler: Handler) -> None:
        handler.begin()
        for one in values:
            handler.line(one)
        handler.end()

    return answer


def refusal(status: int, error: str, exit_code: int) -> Callable[[Handler], None]:
    return lambda handler: handler.send(status, {"error": error, "exit_code": exit_code})


@contextmanager
def fake_control(path: Path) -> Iterator[FakeControl]:
    with FakeControl(path) as control:
        thread = threading.Thread(target=control.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield control
        control.shutdown()
        thread.join(5)
