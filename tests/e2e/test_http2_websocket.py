"""WebSockets over HTTP/2 (RFC 8441) through a real lbproxy: 1001 in the stream, the connection stays."""

from pathlib import Path

import pytest
from support.http2 import Http2, http2
from support.serve import Serving, serving
from support.web import web
from support.ws import WebSocketEnd, dial
from support.ws2 import StreamSocket, connect_fields, dial2

GOING_AWAY = (1001, "going away")
BIG = bytes(range(256)) * 2000  # 512 KB: eight windows


LONG = "long " * 100_000


def config(**texts: str) -> str:
    text = web(
        'bind = "fd"',
        command="$longlived",
        size=1,
        reload='min_ready = "0s"',
        more='[pool.web.drain]\nwebsocket = "0s"\ngoodbye = "3s"\n[log]\naccess_path = "access.log"',
        **texts,
    )
    return text.replace('name = "public"', 'name = "public"\nprotocols = ["h2c", "http/1.1"]')


def stream_of(end: WebSocketEnd) -> StreamSocket:
    assert isinstance(end.sock, StreamSocket)
    return end.sock


def test_websockets_share_a_connection_with_requests_and_are_closed_with_1001_at_a_reload(tmp_path: Path) -> None:
    with serving(config(), tmp_path) as lb, http2(lb.port) as client:
        first, second = dial2(client, "/ws?name=first"), dial2(client, "/ws?name=second")
        first.send("hello")
        second.send(BIG)
        assert client.get("/healthz").status == 200
        assert second.message() == BIG
        assert first.message() == "hello"
        answer = stream_of(first).answer
        assert not {"sec-websocket-accept", "upgrade", "connection"} & set(answer.headers)

        listed = lb.cli("connections", "--json").stdout
        assert listed.count('"kind":"websocket"') == 2, listed

        second.close(1000, "done")
        heard = second.follow(answer=False)
        assert (heard.closes, heard.behind_close, heard.reset) == ([(1000, "")], [], False)
        assert stream_of(second).answer.ended

        broken = dial2(client, "/ws?name=broken")
        client.reset(stream_of(broken).stream)
        lb.wait_log("websocket broken ended without a Close")

        _refused(client)

        assert lb.api("POST", "/v1/reload", {"wait": False}).status == 200
        heard = first.follow()
        assert (heard.closes, heard.behind_close, heard.reset) == ([GOING_AWAY], [], False)
        lb.wait_log("websocket first got Close 1001")
        lb.wait_log('"websockets_closed":1')
        assert client.get("/healthz").status == 200, "the connection has nothing to do with the backend that went"
        assert not client.goaways

        last = dial2(client, "/ws?name=last")
        lb.process.terminate()  # type: ignore[union-attr]
        assert last.follow().closes == [GOING_AWAY]
        client.wait_end()
        assert [frame.error_code for frame in client.goaways] == [0, 0]
        assert lb.stop() == 0
        _is_logged(lb)


def _refused(client: Http2) -> None:
    """What is no WebSocket is answered, and never with a 2xx."""
    for fields, status in (
        (connect_fields("/no-websocket-here"), 501),  # it answered 200, as to a GET
        (connect_fields("/ws", protocol="something"), 501),
        (connect_fields("/ws", protocol="h2c"), 501),
    ):
        answer = client.answer(client.open(fields, end=False))
        assert answer.status == status, (fields, answer)


def _is_logged(lb: Serving) -> None:
    access = (lb.config.parent / "access.log").read_text()
    lines = [line for line in access.splitlines() if '"GET /ws?name=' in line]
    assert len(lines) == 4, lines
    assert all(' HTTP/2.0" 101 ' in line for line in lines), lines


def test_a_pool_without_websockets_answers_501(tmp_path: Path) -> None:
    text = config().replace('bind = "fd"', 'bind = "fd"\nupgrades = []')
    with serving(text, tmp_path) as lb, http2(lb.port) as client:
        answer = client.answer(client.open(connect_fields("/ws"), end=False))
        assert answer.status == 501
        assert "websocket" in answer.headers["proxy-status"] or b"websocket" in answer.body, answer


def test_a_backend_of_http2_gets_extended_connect_from_clients_of_both_protocols(tmp_path: Path) -> None:
    text = (
        config().replace('bind = "fd"', 'protocol = "h2c"').replace("$longlived", "$hypercorn --bind 127.0.0.1:{port}")
    )
    with serving(text, tmp_path) as lb, http2(lb.port) as client:
        ends = [dial2(client), dial(lb.port)]
        for end in ends:
            end.send("hello")
            assert end.message() == "hello"
            end.send(LONG)
            assert end.message() == LONG
        ends[0].close(1000, "done")
        assert ends[0].follow_to_close().closes == [(1000, "done")]
        ends[0].sock.close()  # hypercorn waits for this
        stream = stream_of(ends[0])
        assert client.answer(stream.stream).reset is None
        ends[0] = dial2(client)
        assert lb.api("POST", "/v1/reload", {"wait": False}).status == 200
        for end in ends:
            heard = end.follow()
            assert (heard.closes, heard.behind_close, heard.reset) == ([GOING_AWAY], [], False)
        assert client.get("/healthz").status == 200


@pytest.mark.peer("nghttpd")
def test_a_backend_of_http2_without_extended_connect_answers_501(tmp_path: Path) -> None:
    text = config().replace('bind = "fd"', 'protocol = "h2c"').replace('path = "/healthz"', "")
    with (
        serving(text.replace("$longlived", "nghttpd --no-tls -a 127.0.0.1 {port}"), tmp_path) as lb,
        http2(lb.port) as client,
    ):
        answer = client.answer(client.open(connect_fields("/ws"), end=False))
        assert (answer.status, b"extended CONNECT" in answer.body) == (501, True), answer
