"""A real HTTP server that takes webhooks: what it got, and what it answers.

with receiver() as hook:
    hook.answers += [500, 204]        # then the last one again
    ...
    hook.wait(2)                      # the first two requests
"""

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

PATIENCE_S = 20.0


@dataclass(frozen=True, slots=True)
class Got:
    path: str
    headers: Message
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Receiver(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.got: list[Got] = []
        self.answers: list[int | Callable[[], int]] = []
        self.told = threading.Condition()

    @property
    def port(self) -> int:
        return self.server_address[1]

    def wait(self, count: int) -> list[Got]:
        with self.told:
            assert self.told.wait_for(lambda: len(self.got) >= count, PATIENCE_S), self.got
            return self.got[:count]

    def names(self) -> list[str]:
        with self.told:
            return [one.json()["event"] for one in self.got]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a client that hangs up."""


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with self.server.told:
            self.server.got.append(Got(self.path, self.headers, body))
            answers = self.server.answers
            answer = (answers.pop(0) if len(answers) > 1 else answers[0]) if answers else 204
            self.server.told.notify_all()
        status = answer if isinstance(answer, int) else answer()
        self.send_response(status)
        if 300 <= status < 400:
            self.send_header("Location", f"http://127.0.0.1:{self.server.port}/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST  # of a backend

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def receiver(port: int = 0, tls: Path | None = None) -> Iterator[Receiver]:
    """`tls`: a file with certificate and key."""
    with Receiver(port) as server:
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls)
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join(5)
