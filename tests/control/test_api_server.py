"""HTTP on the control socket, over a real unix socket: answers, streams, limits, and clients that behave badly."""

import json
import socket

import pytest
import trio
from support.trio_test import trio_test

from lbproxy.control import api_server
from lbproxy.control.api_server import Answer, ApiServer, Declined, path_and_query


class Server:
    """`async with Server(path).running() as server`"""

    def __init__(self, path, answer):
        self.path = path
        self.events = []
        self.answer = answer

    async def __aenter__(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.bind(self.path)
        self.sock.listen(64)
        self.nursery_manager = trio.open_nursery()
        self.nursery = await self.nursery_manager.__aenter__()
        server = ApiServer(trio.socket.from_stdlib_socket(self.sock), self.answer, self.events.append)
        self.nursery.start_soon(server.run)
        return self

    async def __aexit__(self, *exc):
        self.nursery.cancel_scope.cancel()
        try:
            await self.nursery_manager.__aexit__(*exc)
        finally:
            self.sock.close()

    async def connect(self):
        return await trio.open_unix_socket(self.path)

    async def ask(self, request):
        """The status and the body of one answer."""
        stream = await self.connect()
        async with stream:
            await stream.send_all(request)
            raw = b""
            while data := await stream.receive_some():
                raw += data
        head, _, body = raw.partition(b"\r\n\r\n")
        return int(head.split()[1]), head, body


async def echo(question):
    return Answer(
        {
            "method": question.method,
            "path": question.path,
            "query": dict(question.query),
            "values": dict(question.values),
        }
    )


def get(target, *lines):
    return "\r\n".join([f"GET {target} HTTP/1.1", "Host: lbproxy", *lines, "", ""]).encode()


def post(target, body, *lines):
    head = [f"POST {target} HTTP/1.1", "Host: lbproxy", f"Content-Length: {len(body)}", *lines, "", ""]
    return "\r\n".join(head).encode() + body


def path_of(tmp_path):
    return str(tmp_path / "lb.sock")


@trio_test
async def test_an_answer_may_be_text_for_who_accepts_it(tmp_path):
    async def answer(question):
        await trio.lowlevel.checkpoint()
        return Answer(text=(question.accept.encode(), "text/plain; version=0.0.4"))

    async with Server(str(tmp_path / "s"), answer) as server:
        status, head, body = await server.ask(get("/metrics", "Accept: text/plain", "accept: a/b;q=0.5"))
        assert (status, body) == (200, b"text/plain, a/b;q=0.5")
        assert b"Content-Type: text/plain; version=0.0.4\r\n" in head


@trio_test
async def test_a_question_gets_a_json_answer_and_the_connection_closes(tmp_path):
    async with Server(path_of(tmp_path), echo) as server:
        status, head, body = await server.ask(get("/v1/status?n=3&follow"))
        assert status == 200
        assert b"Connection: close" in head
        assert json.loads(body) == {
            "method": "GET",
            "path": "/v1/status",
            "query": {"n": "3", "follow": ""},
            "values": {},
        }


@trio_test
async def test_a_body_may_come_in_any_pieces_and_in_chunks(tmp_path):
    async with Server(path_of(tmp_path), echo) as server:
        request = post("/v1/reload", b'{"pools": ["web"]}')
        stream = await server.connect()
        for at in range(0, len(request), 7):
            await stream.send_all(request[at : at + 7])
        assert b'"pools":["web"]' in await stream.receive_some()
        await stream.aclose()
        chunked = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        status, _, body = await server.ask(chunked + b'8\r\n{"a": 1}\r\n0\r\n\r\n')
        assert status == 200
        assert json.loads(body)["values"] == {"a": 1}


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 431),
        (post("/", b"{" * 600_000), 413),
        (post("/", b"not json"), 400),
        (post("/", b"[1]"), 400),
        (post("/", b"[" * 5000), 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    ],
)
def test_rubbish_is_answered_with_an_error(tmp_path, request_bytes, status):
    async def main():
        async with Server(path_of(tmp_path), echo) as server:
            answered, _, body = await server.ask(request_bytes)
            assert answered == status
            assert json.loads(body)["error"]
            assert (await server.ask(get("/")))[0] == 200, "and the next one is served"

    trio.run(main)


@trio_test
async def test_an_error_carries_its_exit_code(tmp_path):
    async def decline(question):
        raise Declined(409, "another reload is running", 8)

    async with Server(path_of(tmp_path), decline) as server:
        status, _, body = await server.ask(get("/"))
        assert status == 409
        assert json.loads(body) == {"error": "another reload is running", "exit_code": 8}


@trio_test
async def test_a_mistake_of_ours_is_an_answer_and_a_notice(tmp_path):
    async def fail(question):
        raise RuntimeError("oh")

    async with Server(path_of(tmp_path), fail) as server:
        status, _, body = await server.ask(get("/"))
        assert status == 500
        assert "oh" in json.loads(body)["error"]
        assert "oh" in server.events[0].text
        assert (await server.ask(get("/")))[0] == 500


@trio_test
async def test_a_stream_comes_line_by_line(tmp_path):
    more = trio.Event()

    async def answer(question):
        async def lines():
            yield {"n": 1}
            await more.wait()
            yield {"n": 2}

        return Answer(lines=lines())

    async with Server(path_of(tmp_path), answer) as server:
        stream = await server.connect()
        await stream.send_all(get("/"))
        raw = b""
        while b'{"n":1}\n' not in raw:
            raw += await stream.receive_some()
        assert b"Transfer-Encoding: chunked" in raw
        more.set()
        while data := await stream.receive_some():
            raw += data
        assert raw.endswith(b'8\r\n{"n":2}\n\r\n0\r\n\r\n')
        await stream.aclose()


@trio_test
async def test_a_stream_ends_when_its_client_goes_though_nothing_is_sent(tmp_path):
    ended = trio.Event()

    async def answer(question):
        async def lines():
            yield {"n": 1}
            await trio.sleep_forever()

        return Answer(lines=lines(), on_end=ended.set)

    async with Server(path_of(tmp_path), answer) as server:
        stream = await server.connect()
        await stream.send_all(get("/"))
        await stream.receive_some()
        await stream.aclose()
        await ended.wait()
        assert server.events == []


@trio_test
async def test_a_client_that_goes_in_the_middle_of_anything_harms_nobody(tmp_path):
    async with Server(path_of(tmp_path), echo) as server:
        for sent in (b"", b"GET", get("/")[:-2], post("/", b"{}")[:-1], get("/")):
            stream = await server.connect()
            await stream.send_all(sent) if sent else None
            await stream.aclose()
        assert (await server.ask(get("/")))[0] == 200
        assert server.events == []


@trio_test
async def test_a_slow_request_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(api_server, "REQUEST_TIMEOUT_S", 0.05)
    async with Server(path_of(tmp_path), echo) as server:
        status, _, _ = await server.ask(b"GET / HT")
        assert status == 408


@trio_test
async def test_whoever_asks_finds_room_although_silent_ones_fill_it(tmp_path, monkeypatch):
    monkeypatch.setattr(api_server, "MAX_CONNECTIONS", 2)
    async with Server(path_of(tmp_path), echo) as server:
        idle = [await server.connect() for _ in range(5)]
        with trio.fail_after(1.0):
            assert (await server.ask(get("/")))[0] == 200
            assert await idle[0].receive_some() == b"", "the one that was silent longest had to go"
        for stream in idle:
            await stream.aclose()


@trio_test
async def test_who_has_asked_keeps_his_place_and_others_wait_their_turn(tmp_path, monkeypatch):
    monkeypatch.setattr(api_server, "MAX_CONNECTIONS", 2)
    answers, go_on = [], trio.Event()

    async def slowly(question):
        await go_on.wait()
        return Answer({})

    async with Server(path_of(tmp_path), slowly) as server:

        async def ask():
            answers.append((await server.ask(get("/")))[0])

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked(0.02)
            assert answers == []
            go_on.set()
        assert answers == [200, 200, 200]


@trio_test
async def test_a_stranger_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(api_server, "peer", lambda sock: (1, 54321))
    async with Server(path_of(tmp_path), echo) as server:
        status, _, body = await server.ask(get("/"))
        assert status == 403
        assert "54321" in json.loads(body)["error"]


def test_a_path_is_what_stands_before_the_query():
    assert path_and_query(b"/v1/logs?n=3&follow&source=a%20b") == (
        "/v1/logs",
        {"n": "3", "follow": "", "source": "a b"},
    )
    assert path_and_query(b"//a/livez") == ("//a/livez", {})


def test_a_target_with_odd_bytes_is_an_error_and_no_crash():
    with pytest.raises(Declined):
        path_and_query(b"/\xff")
