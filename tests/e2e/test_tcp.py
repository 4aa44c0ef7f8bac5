"""TCP mode of a real lbproxy: bytes both ways, ends passed on, sessions that finish or are cut, backends down."""

import http.client
import os
import signal
import socket
import struct
import threading
from contextlib import ExitStack, closing
from pathlib import Path
from time import monotonic

import pytest
from support.apps.scripted import Peer, scripted
from support.load import ab
from support.ports import free_port
from support.serve import serving
from support.swap import swapping
from support.web import web

RAW = '[[listener]]\nname = "raw"\naddress = "127.0.0.1:$port2"\nmode = "tcp"\npool = "web"\n'
TARGETS = """
[proxy]
workers = 1
[[listener]]
address = "127.0.0.1:$port"
mode = "tcp"
[pool.web]
targets = [{targets}]
limits = {{ queue = {{ size = 10, timeout = "{queue_timeout}" }} }}
health = {{ interval = "100ms", rise = 1 }}
"""


def both_ways(workers: int = 2, drain: str = "", **settings) -> str:
    """An HTTP listener and a TCP listener before one pool."""
    more = f"[pool.web.drain]\n{drain}\n{RAW}"
    return web(reload='min_ready = "0s"', more=more, workers=workers, **settings)


def to_the_end(sock: socket.socket) -> bytes:
    data = b""
    while more := sock.recv(1 << 18):
        data += more
    return data


def ask(sock: socket.socket, path: str) -> http.client.HTTPResponse:
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
    response = http.client.HTTPResponse(sock)
    response.begin()
    return response


def raw(lb) -> socket.socket:
    return socket.create_connection(("127.0.0.1", lb.ports["port2"]), timeout=10)


def test_all_backends_are_used_and_none_is_stopped_with_a_session_in_hand(tmp_path: Path) -> None:
    with serving(both_ways(size=4, pool='bind = "fd"', command="$longlived"), tmp_path) as lb, ExitStack() as stack:
        sessions = [stack.enter_context(raw(lb)) for _ in range(16)]
        slots = [ask(session, "/whoami").read() for session in sessions]
        assert {slots.count(slot) for slot in slots} == {4}, "sixteen sessions on four backends"
        for session in sessions:
            session.sendall(b"GET /slow?s=2 HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        lb.wait_until(lambda: sum(backend["leases"].get("tcp", 0) for backend in lb.backends()) == 16)
        lb.signal(signal.SIGUSR2)
        for session, slot in zip(sessions, slots, strict=True):
            assert to_the_end(session).endswith(slot), "an exchange of 2 s ends on the backend it began on"
            session.close()
        lb.wait_log('"reload.finished"')
        lb.wait_until(lambda: lb.log().count("TERM with 0 in hand") == 4)
        assert '"cut":0' in lb.log().partition('"reload.done"')[2]


def test_the_end_of_either_side_is_passed_on_while_the_other_goes_on(tmp_path: Path) -> None:
    with swapping(tmp_path, mode="tcp") as stage:
        with stage.lb.connect() as client:
            client.sendall(b"all I have to say")
            client.shutdown(socket.SHUT_WR)
            backend = stage.backend.peer()
            backend.wait_closed()
            assert backend.received == b"all I have to say"
            backend.send(b"and much " * 100_000)
            backend.sock.shutdown(socket.SHUT_WR)
            assert to_the_end(client) == b"and much " * 100_000
        with stage.lb.connect() as client:
            client.sendall(b"first")
            backend = stage.backend.peer()
            backend.sock.shutdown(socket.SHUT_WR)
            assert to_the_end(client) == b""
            client.sendall(b" and second")
            client.shutdown(socket.SHUT_WR)
            backend.wait_closed()
            assert backend.received == b"first and second"


def test_a_reset_of_the_backend_is_a_reset_for_the_client(tmp_path: Path) -> None:
    with swapping(tmp_path, mode="tcp") as stage, stage.lb.connect() as client:
        client.sendall(b"hello")
        stage.backend.peer().reset()
        with pytest.raises(ConnectionResetError):
            client.recv(100)


def test_much_data_both_ways_at_once_arrives_whole(tmp_path: Path) -> None:
    there, back = os.urandom(1 << 20) * 20, os.urandom(1 << 20) * 20
    with swapping(tmp_path, mode="tcp") as stage, stage.lb.connect() as client:
        client.sendall(there[:1])
        backend = stage.backend.peer()
        senders = [
            threading.Thread(target=client.sendall, args=(there[1:],)),
            threading.Thread(target=backend.send, args=(back,)),
        ]
        heard: list[bytes] = []
        receiver = threading.Thread(target=lambda: heard.append(_exactly(client, len(back))))
        for thread in (*senders, receiver):
            thread.start()
        assert there[:1] + _exactly(backend.sock, len(there) - 1) == there
        for thread in (*senders, receiver):
            thread.join()
        backend.sock.close()
        assert heard == [back]


def _exactly(sock: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        more = sock.recv(1 << 18)
        assert more
        data += more
    return bytes(data)


def test_an_idle_session_is_cut_at_its_grace_and_counted(tmp_path: Path) -> None:
    with swapping(tmp_path, 'tcp = "1s"', mode="tcp") as stage, stage.lb.connect() as client:
        client.sendall(b"x")
        stage.backend.peer()
        began = monotonic()
        with stage.reload() as verdict:
            assert to_the_end(client) == b""
        assert 0.9 < monotonic() - began < 4
        assert (verdict["cut"], verdict["failed"]) == (1, 0)
        client.close()
        with stage.lb.connect() as again:
            again.sendall(b"y")
            assert stage.fresh.peer().received == b"y"


def test_an_exchange_that_ends_within_the_grace_holds_the_drain_and_is_not_cut(tmp_path: Path) -> None:
    with swapping(tmp_path, 'tcp = "10s"', mode="tcp") as stage, stage.lb.connect() as client:
        client.sendall(b"x")
        backend = stage.backend.peer()
        with stage.reload() as verdict:
            assert not verdict
            client.sendall(b"more")
            backend.read(5)
            backend.send(b"late answer")
            backend.sock.close()
            assert to_the_end(client) == b"late answer"
            client.close()
        assert verdict["cut"] == 0


def test_a_backend_that_is_down_is_passed_over(tmp_path: Path) -> None:
    def who(peer: Peer) -> None:
        peer.send(b"here")
        peer.wait_closed()

    dead = free_port()
    with scripted(who) as alive:
        targets = f'"127.0.0.1:{dead}", "127.0.0.1:{alive.port}"'
        with serving(TARGETS.format(targets=targets, queue_timeout="5s"), tmp_path, wait=False) as lb:
            lb.wait_log('"backend.ready"')
            lb.wait_log('"worker.started"')
            for _ in range(20):
                with lb.connect() as client:
                    assert client.recv(100) == b"here"


def test_with_nobody_there_a_client_waits_for_a_backend_or_is_let_go(tmp_path: Path) -> None:
    port = free_port()
    config = TARGETS.format(targets=f'"127.0.0.1:{port}"', queue_timeout="1s")
    with serving(config, tmp_path, wait=False) as lb:
        lb.wait_log('"worker.started"')
        with lb.connect() as client:
            began = monotonic()
            assert to_the_end(client) == b""
            assert 0.8 < monotonic() - began < 5
        with lb.connect() as client:
            client.sendall(b"hello")
            with scripted(lambda peer: peer.send(peer.read(5) + b" to you"), port):
                assert to_the_end(client) == b"hello to you"


def test_a_session_waits_while_the_only_backend_is_started_again(tmp_path: Path) -> None:
    config = both_ways(size=1, pool='bind = "fd"', command="$longlived")
    with serving(
        config.replace("stop_timeout", 'backoff = { first = "100ms", max = "1s" }\nstop_timeout'), tmp_path
    ) as lb:
        pid = lb.backends()[0]["pid"]
        os.kill(pid, signal.SIGKILL)
        lb.wait_log('"backend.exited"')
        with raw(lb) as client:
            assert ask(client, "/whoami").status == 200


def test_a_client_that_resets_leaves_nothing_behind(tmp_path: Path) -> None:
    with swapping(tmp_path, mode="tcp") as stage:
        for _ in range(20):
            client = stage.lb.connect()
            client.sendall(b"x")
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
        stage.lb.wait_until(lambda: stage.lb.backends()[0]["in_flight"] == 0)
        stage.lb.wait_until(lambda: stage.lb.status()["workers"][0]["connections"] == 0)


def test_a_keep_alive_client_of_another_listener_is_not_disconnected(tmp_path: Path) -> None:
    with serving(both_ways(size=2, pool='bind = "fd"', command="$longlived", drain='tcp = "200ms"'), tmp_path) as lb:
        connection = http.client.HTTPConnection("127.0.0.1", lb.port, timeout=10)
        with closing(connection), raw(lb) as session:
            connection.request("GET", "/whoami")
            assert b'"1"' in connection.getresponse().read()
            used = connection.sock
            assert ask(session, "/whoami").status == 200
            for _ in range(3):
                assert lb.api("POST", "/v1/reload", {}).status == 200
            connection.request("GET", "/whoami")
            assert b'"generation": "4"' in connection.getresponse().read()
            assert connection.sock is used


@pytest.mark.peer("ab")
@pytest.mark.parametrize("keep_alive", [False, True], ids=["a connection per request", "keep-alive"])
def test_ab_through_tcp_mode_loses_nothing_over_reloads(tmp_path: Path, keep_alive: bool) -> None:
    with serving(both_ways(size=3, command="$origin --port {port}"), tmp_path) as lb:
        options, requests = (["-k"], 8000) if keep_alive else ([], 3000)
        with ab(lb.ports["port2"], requests, 40, *options) as reports:
            for _ in range(2):
                assert lb.api("POST", "/v1/reload", {}).status == 200
        (report,) = reports
        assert (report.complete, report.failed, report.others) == (requests, 0, 0), report.output
        lb.wait_until(lambda: lb.log().count('"result":"ok"') == 2)
