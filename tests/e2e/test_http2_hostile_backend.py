"""A backend over h2c that breaks the rules: clients of both protocols see 502, or an answer that is plainly cut."""

from pathlib import Path

import h11
from support.hostile_backend import CUT, GOOD, SCRIPTS, hostile_backend
from support.raw_http2 import Verdict, get, headers, raw_http2
from support.serve import Serving, serving

CONFIG = """
[proxy]
workers = 1
[[listener]]
address = "127.0.0.1:$port"
protocols = ["h2c", "http/1.1"]
[pool.web]
targets = ["127.0.0.1:{port}"]
protocol = "h2c"
timeouts = {{ response = "1s", idle = "1s" }}
[log]
access = "off"
"""
MOST_TRIES = 4  # of one request at the backend


def test_what_a_hostile_backend_says_is_an_error_and_never_an_answer(tmp_path: Path) -> None:
    with hostile_backend() as backend, serving(CONFIG.format(port=backend.port), tmp_path) as lb:
        wrong = []
        for path, (_, due) in SCRIPTS.items():
            for ask in (over_http1, over_http2):
                backend.requests.clear()
                found = ask(lb, path)
                if found != due and (due, found) != (CUT, 502):  # it may be noticed before the head has left
                    wrong.append(f"{ask.__name__} {path}: {found}, not {due}")
                if len(backend.requests) > MOST_TRIES:
                    wrong.append(f"{ask.__name__} {path}: the backend was asked {len(backend.requests)} times")
                if over_http2(lb, "/good") != GOOD:
                    wrong.append(f"{ask.__name__} {path}: /good does not work behind it")
        assert not wrong, "\n".join(wrong)
        assert "Traceback" not in lb.log()


def over_http1(lb: Serving, path: str) -> int:
    """The status, or CUT."""
    client = h11.Connection(h11.CLIENT)
    request = client.send(h11.Request(method="GET", target=path, headers=[("Host", "a.example")]))
    status, body = CUT, b""
    with lb.connect() as sock:
        sock.sendall(request or b"")
        client.send(h11.EndOfMessage())
        while True:
            try:
                event = client.next_event()
                if event is h11.NEED_DATA:
                    client.receive_data(sock.recv(65536))
                    continue
            except (h11.RemoteProtocolError, OSError):
                return CUT
            if isinstance(event, h11.Response):
                status = event.status_code
                assert not {b"injected", b"x"} & dict(event.headers).keys()
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                assert b"evil" not in body
                return status


def over_http2(lb: Serving, path: str) -> int:
    with raw_http2(lb.port) as client:
        client.send(headers(1, get(path.encode())))
        verdict: Verdict = client.verdict(1)
    assert b"evil" not in verdict.body
    assert not {b"injected", b"host", b"transfer-encoding"} & dict(verdict.fields + verdict.trailers).keys()
    if verdict.reset is not None:
        return CUT
    assert not verdict.closed, verdict
    return verdict.status
