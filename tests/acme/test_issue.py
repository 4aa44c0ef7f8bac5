"""One order, at a real authority: Debian's pebble."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from support.pebble import prepare, running
from support.ports import free_port

from lbproxy.acme.certificate_file import read_lifetime
from lbproxy.acme.issue import Answers, NotIssued, issue
from lbproxy.acme.messages import Order


@contextmanager
def answering(port: int, answers: dict[str, str]) -> Iterator[None]:
    """A web server that has the tokens."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = answers.get(self.path.rpartition("/")[2])
            self.send_response(404 if found is None else 200)
            self.end_headers()
            self.wfile.write((found or "").encode())

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield
        server.shutdown()
        thread.join()


@pytest.mark.peer("pebble", "pebble-challtestsrv")
def test_a_certificate_comes_and_a_refusal_is_explained(tmp_path: Path) -> None:
    port = free_port()
    tokens: dict[str, str] = {}
    given: list[Answers] = []

    def serve(answers: Answers) -> None:
        given.append(answers)
        tokens.clear()
        tokens.update(answers)

    ca = prepare(tmp_path / "ca", http_port=port, blocked=("blocked.example",))
    order = Order(str(tmp_path / "acme" / "a.pem"), ("a.example",), ca.directory, "o@a.example", str(ca.trust))
    blocked = Order(str(tmp_path / "acme" / "b.pem"), ("blocked.example",), ca.directory, None, str(ca.trust))
    with running(ca), answering(port, tokens):
        lifetime = issue(order, serve)
        assert read_lifetime(order.file) == lifetime
        assert not lifetime.stands_in
        assert [len(answers) for answers in given] == [1]
        with pytest.raises(
            NotIssued, match=r"the authority refuses: rejectedIdentifier: .*blocked\.example"
        ) as refused:
            issue(blocked, serve)
        assert refused.value.failure.is_refused
        with pytest.raises(NotIssued, match=r"could not validate c\.example: unauthorized"):
            issue(Order(order.file, ("c.example",), ca.directory, None, str(ca.trust)), lambda answers: None)
        with pytest.raises(NotIssued, match=r"cannot be asked: .*certificate") as unknown:
            issue(Order(order.file, ("a.example",), ca.directory), serve)
        assert not unknown.value.failure.is_refused
    with pytest.raises(NotIssued, match="cannot be asked: connection refused"):
        issue(order, serve)
    assert read_lifetime(order.file) == lifetime
