"""Event streams over reloads of a real lbproxy: they end behind a whole event, properly, and not all at once."""

import http.client
import re
import socket
import threading
from contextlib import ExitStack
from pathlib import Path
from time import monotonic

import pytest
from support.serve import serving
from support.swap import swapping
from support.web import web

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
REQUEST = b"GET /sse HTTP/1.1\r\nHost: test\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Listener:
    """A client of an event stream, read as bytes."""

    def __init__(self, sock: socket.socket, request: bytes = REQUEST) -> None:
        self.sock = sock
        self.data = b""
        sock.sendall(request)

    def read_until(self, end: bytes) -> bytes:
        while end not in self.data:
            more = self.sock.recv(65536)
            assert more, f"the connection ended behind {self.data!r}"
            self.data += more
        return self.data

    def rest(self) -> bytes:
        """To the end of the connection."""
        while more := self.sock.recv(65536):
            self.data += more
        return self.data

    def payload(self) -> bytes:
        """Of the chunks, which must be whole."""
        rest, payload = self.data.partition(b"\r\n\r\n")[2], b""
        while rest:
            line, _, rest = rest.partition(b"\r\n")
            size = int(line, 16)
            assert len(rest) >= size + 2
            payload += rest[:size]
            rest = rest[size + 2 :]
            if size == 0:
                return payload
        raise AssertionError(f"the chunked body does not end: {self.data!r}")


def test_a_stream_in_the_middle_of_an_event_ends_behind_it(tmp_path: Path) -> None:
    """With each of the three ends of a line, and a client of HTTP/1.0. The connections stay usable."""
    ends = (b"\n", b"\r\n", b"\r", b"\n")
    with swapping(tmp_path, 'stream = "5s"\ngoodbye = "5s"') as stage, ExitStack() as stack:
        listeners, peers = [], []
        for number, end in enumerate(ends):
            sock = stack.enter_context(stage.lb.connect())
            listeners.append(Listener(sock, REQUEST if number < 3 else b"GET /sse HTTP/1.0\r\n\r\n"))
            peers.append(stage.backend.peer())
            peers[-1].send(HEAD + chunk(b"id: 1" + end + b"data: beg"))
            listeners[-1].read_until(b"data: beg")
        with stage.reload() as verdict:
            threading.Event().wait(2.6)  # by now each has been told: the other half of the time is for the events
            for peer, end in zip(peers, ends, strict=True):
                peer.send(chunk(b"un" + end + end[:-1]))
            for listener in listeners:
                listener.read_until(b"un")
            for peer, end in zip(peers, ends, strict=True):
                peer.send(chunk(end[-1:] + b"data: the next event, which nobody must see" + end))
            for listener, end in zip(listeners[:3], ends, strict=False):
                listener.read_until(b"0\r\n\r\n")
                assert listener.payload() == b"id: 1" + end + b"data: begun" + end + end
            assert listeners[3].rest().endswith(b"\r\n\r\nid: 1\ndata: begun\n\n")
        assert (verdict["cut"], verdict["failed"]) == (0, 0)

        for listener in listeners[:3]:
            listener.sock.sendall(b"GET /next HTTP/1.1\r\nHost: test\r\n\r\n")
            fresh = stage.fresh.peer()
            assert fresh.received.startswith(b"GET /next ")
            fresh.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfresh")
            listener.read_until(b"\r\n\r\nfresh")
            fresh.sock.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("grace", ["2s", "0s"])
def test_a_quiet_stream_ends_at_once_when_it_is_told(tmp_path: Path, grace: str) -> None:
    with swapping(tmp_path, f'stream = "{grace}"\ngoodbye = "2s"') as stage, stage.lb.connect() as sock:
        listener = Listener(sock)
        stage.backend.peer().send(HEAD + chunk(b"data: only\n\n"))
        listener.read_until(b"only\n\n")
        began = monotonic()
        with stage.reload():
            listener.read_until(b"0\r\n\r\n")
        assert listener.payload() == b"data: only\n\n"
        assert monotonic() - began < 4


def test_an_event_that_never_ends_is_cut_at_the_grace_without_a_proper_end(tmp_path: Path) -> None:
    with swapping(tmp_path, 'stream = "500ms"\ngoodbye = "100ms"') as stage, stage.lb.connect() as sock:
        listener = Listener(sock)
        stage.backend.peer().send(HEAD + chunk(b"data: this event has no e"))
        listener.read_until(b"no e")
        with stage.reload() as verdict:
            listener.rest()
        assert b"0\r\n\r\n" not in listener.data, "nobody may take a part for the whole"
        assert verdict["cut"] == 1
        assert 0.4 < verdict["duration_s"] < 3


def test_ends_are_spread_over_their_window(tmp_path: Path) -> None:
    """Twenty streams that talk all the time, and one client that comes back with the last id it saw."""
    config = web(
        'bind = "fd"',
        command="$longlived",
        size=1,
        workers=2,
        reload='min_ready = "0s"',
        more='[pool.web.drain]\nstream = "2s"\ngoodbye = "400ms"',
    )
    ended: list[float] = []

    def listen(connection: http.client.HTTPConnection) -> None:
        body = connection.getresponse().read()  # IncompleteRead unless its end is proper
        ended.append(monotonic())
        assert body.endswith(b"\n\n")

    with serving(config, tmp_path) as lb:
        connections = [http.client.HTTPConnection("127.0.0.1", lb.port, timeout=20) for _ in range(20)]
        threads = [threading.Thread(target=listen, args=(connection,)) for connection in connections]
        for connection, thread in zip(connections, threads, strict=True):
            connection.request("GET", "/sse?every=0.02")
            thread.start()
        lb.wait_until(lambda: lb.backends()[0]["leases"].get("stream") == 20)
        assert lb.api("POST", "/v1/reload", {}).status == 200
        for thread in threads:
            thread.join()
        ended.sort()
        span = ended[-1] - ended[0]
        assert 1.0 < span < 3
        for quarter in range(4):
            first, last = ended[0] + quarter / 4 * span, ended[0] + (quarter + 1) / 4 * span
            assert 1 <= sum(first <= time <= last for time in ended) <= 10
        lb.wait_log('"failed":0,"cut":0')

        connection = connections[0]
        connection.request("GET", "/sse", headers={"Last-Event-ID": "41"})
        response = connection.getresponse()
        first_id = b""
        while not (found := re.search(rb"id: (\d+)\ndata: (\d+)\n\n", first_id)):
            first_id += response.read1(1000)
        assert (found[1], found[2]) == (b"42", b"2"), "the next id, from the new generation"
        for connection in connections:
            connection.close()
