"""`lbproxy connections`, `close` and `drain --why` against a real lbproxy: the connections that are really open."""

import contextlib
import io
import json
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import psutil
import pytest
from support.over_tls import plain_only
from support.serve import Serving, serving
from support.web import web
from support.ws import dial, following

from lbproxy.cli.client import ControlClient
from lbproxy.cli.connections import why
from lbproxy.cli.options import Fail

RAW = '[[listener]]\nname = "raw"\naddress = "127.0.0.1:$port2"\nmode = "tcp"\npool = "web"\n'
GRACES = 'request = "20s"\ntransfer = "30s"\nstream = "40s"\nwebsocket = "0s"\ntcp = "50s"\ngoodbye = "20s"\n'
SLOW = b"GET /slow?s=40 HTTP/1.1\r\nHost: test\r\n\r\n"


@pytest.fixture(scope="module")
def lb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    more = f"[pool.web.drain]\n{GRACES}\n{RAW}"
    config = web(reload='min_ready = "0s"', more=more, size=1, workers=2, command="$longlived")
    with serving(config, tmp_path_factory.mktemp("lb")) as running:
        yield running


def really_open(lb: Serving) -> set[str]:
    """The clients of the connections that the workers hold, as the kernel knows them."""
    ports = {lb.port, lb.ports["port2"]}
    found = set()
    for pid in lb.pids_of("lbproxy.worker"):
        for one in psutil.Process(pid).net_connections("tcp"):
            if one.laddr.port in ports and one.raddr:
                found.add(f"{one.raddr.ip}:{one.raddr.port}")
    return found


def listed(lb: Serving, *source: str) -> list[dict]:
    done = lb.cli("connections", *source, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["connections"]


def name_of(sock: socket.socket) -> str:
    host, port = sock.getsockname()
    return f"{host}:{port}"


def asked(lb: Serving, request: bytes, port: str = "port") -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", lb.ports[port]), timeout=10)
    sock.sendall(request)
    return sock


def to_the_end(sock: socket.socket) -> bytes:
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while more := sock.recv(1 << 16):
            data += more
    return data


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode()


@plain_only
def test_every_open_connection_is_listed_with_its_kind_and_closed_by_its_kind(lb: Serving) -> None:
    with ExitStack() as stack:
        idle = stack.enter_context(asked(lb, b""))
        kept = stack.enter_context(asked(lb, get("/whoami")))
        assert kept.recv(1000)
        slow = stack.enter_context(asked(lb, SLOW))
        drip = stack.enter_context(asked(lb, get("/drip?s=60&every=0.05&block=2000")))
        assert drip.recv(1000)
        sse = stack.enter_context(asked(lb, get("/sse?every=0.05")))
        assert sse.recv(1000)
        raw = stack.enter_context(asked(lb, SLOW, "port2"))
        websocket = dial(lb.port)
        stack.enter_context(following(websocket))
        wanted = {
            name_of(idle): ("idle", None),
            name_of(kept): ("idle", None),
            name_of(slow): ("request", "request"),
            name_of(drip): ("transfer", "transfer"),
            name_of(sse): ("stream", "stream"),
            name_of(raw): ("tcp", "tcp"),
            name_of(websocket.sock): ("websocket", "websocket"),
        }
        lb.wait_until(lambda: len(listed(lb, "web")) == 5)
        rows = {row["client"]: row for row in listed(lb)}
        assert {client: (row["kind"], row["rule"]) for client, row in rows.items()} == wanted
        assert set(rows) == really_open(lb)
        assert {row["backend"] for row in rows.values()} == {"web.1@1", None}
        assert rows[name_of(raw)]["listener"] == "raw"
        assert {row["left_s"] for row in rows.values()} == {None}
        assert rows[name_of(slow)]["grace_s"] == 20
        moved = rows[name_of(drip)]["bytes_10s"]
        assert 200_000 < moved < 800_000, "2000 bytes 20 times in a second, for 10 seconds"
        assert {row["id"]: row["client"] for row in listed(lb)} == {row["id"]: row["client"] for row in rows.values()}

        pages = list(paged(lb, limit=2))
        assert [len(page) for page in pages] == [2, 2, 2, 1]
        assert {id for page in pages for id in page} == {row["id"] for row in rows.values()}
        assert {row["client"] for row in listed(lb, "web.1")} == {
            client for client, row in rows.items() if row["backend"]
        }

        def close(sock: socket.socket) -> str:
            done = lb.cli("close", rows[name_of(sock)]["id"])
            assert done.returncode == 0, done.stderr
            return done.stdout.split()[0]

        assert [close(sock) for sock in (idle, kept, slow, drip, raw)] == ["closed", "closed", "cut", "cut", "cut"]
        assert [close(sock) for sock in (sse, websocket.sock)] == ["said", "said"]
        assert to_the_end(idle) == b""
        answer = to_the_end(slow).decode()
        assert " 503 " in answer, "a GET may be sent again"
        request_id = answer.partition("X-Request-ID: ")[2].partition("\r\n")[0]
        assert to_the_end(sse).endswith(b"\n\n\r\n0\r\n\r\n"), "behind a whole event"
        to_the_end(raw)
        to_the_end(drip)
    assert websocket.heard.closes == [(1001, "going away")]
    lb.wait_until(lambda: not listed(lb) and not really_open(lb))
    told = lb.cli("why", request_id)
    assert told.returncode == 0, told.stderr
    assert "GET /slow?s=40  from 127.0.0.1" in told.stdout
    assert "the backend was taken away" in told.stdout
    lb.wait_log('"exchange.failed"')
    unknown = lb.cli("why", "nobody")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert "no failed exchange 'nobody' among the last" in unknown.stderr
    gone = lb.cli("close", "w1-999999999")
    assert (gone.returncode, gone.stdout) == (1, "")
    assert gone.stderr == "lbproxy: no connection 'w1-999999999' (any more)\n"


def paged(lb: Serving, limit: int) -> Iterator[list[str]]:
    after = ""
    while True:
        page = lb.api("GET", f"/v1/connections?limit={limit}{after}").json()
        yield [row["id"] for row in page["connections"]]
        if page["next"] is None:
            return
        after = f"&after={page['next']}"


@plain_only
def test_what_holds_a_drain_is_told_with_the_time_that_it_has_left(lb: Serving) -> None:
    client = ControlClient(lb.control)
    with pytest.raises(Fail) as refused:
        why(client, "web.1")
    assert (refused.value.exit_code, str(refused.value)) == (1, "lbproxy: web.1 does not drain: it is ready")
    generation = lb.backends()[0]["generation"]
    with ExitStack() as stack:
        held = [stack.enter_context(asked(lb, SLOW)) for _ in range(3)]
        held += [stack.enter_context(asked(lb, SLOW, "port2"))]
        stack.enter_context(asked(lb, b""))
        lb.wait_until(lambda: len(listed(lb, "web.1")) == 4)
        lb.signal(signal.SIGUSR2)
        lb.wait_until(lambda: any(backend["state"] == "draining" for backend in lb.backends()))
        rows = listed(lb, f"web.1@{generation}")
        assert {row["client"] for row in rows} == {name_of(sock) for sock in held}
        assert all(0 < row["left_s"] <= row["grace_s"] for row in rows)
        told = io.StringIO()
        with contextlib.redirect_stdout(told):
            assert why(client, "web.1") == 0
        lines = told.getvalue().splitlines()
        assert lines[0].split() == ["CONNECTION", "CLIENT", "KIND", "BACKEND", "AGE", "BYTES/10s", "GRACE", "LEFT"]
        assert {line.split()[1] for line in lines[1:]} == {name_of(sock) for sock in held}
        for row in rows:
            assert lb.cli("close", row["id"]).returncode == 0
    lb.wait_log('"reload.finished"')


def test_what_is_unknown_or_malformed_is_refused_in_one_line(lb: Serving) -> None:
    for args, exit_code, words in (
        (("connections", "wbe"), 1, "no pool or backend 'wbe' (there is: web, web.1)"),
        (("close", "web.1"), 1, "expected the id of a connection, such as 'w1-483', got 'web.1'"),
        (("close", "w9-1"), 1, "no connection 'w9-1': no worker 9 serves"),
    ):
        done = lb.cli(*args)
        assert (done.returncode, done.stdout, done.stderr) == (exit_code, "", f"lbproxy: {words}\n")
    for target in ("limit=0", "limit=1001", "limit=-1", "limit=x", "after=w0-1", "after=1"):
        assert lb.api("GET", f"/v1/connections?{target}").status == 400
    assert lb.api("POST", "/v1/close", {"connection": 7}).status == 400
