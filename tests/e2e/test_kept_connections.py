"""Kept backend connections that are not fit for the next request, and backends that end between two requests."""

import collections
import http.client
import socket
import threading
from pathlib import Path

import pytest
from support.serve import serving
from support.web import web

# Answers OPTIONS as $FIELD says, and sends the body that it announces so many ms later; everything else is "hello".
LATE_BODY = """
import os, socket, sys, threading, time
field, late_s = sys.argv[1].encode(), float(sys.argv[2]) / 1000
body = b"5\\r\\nhello\\r\\n0\\r\\n\\r\\n" if b"chunked" in field else b"hello"
server = socket.create_server((os.environ["HOST"], int(os.environ["PORT"])), backlog=100)

def serve(connection):
    data = b""
    while True:
        while b"\\r\\n\\r\\n" not in data:
            more = connection.recv(65536)
            if not more:
                return
            data += more
        head, _, data = data.partition(b"\\r\\n\\r\\n")
        if head.startswith(b"OPTIONS"):
            connection.sendall(b"HTTP/1.1 204 No Content\\r\\n" + field + b"\\r\\n\\r\\n")
            time.sleep(late_s)
            connection.sendall(body)
        else:
            connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\n\\r\\nhello")

def guarded(connection):
    try:
        serve(connection)
    except OSError:
        pass

while True:
    threading.Thread(target=guarded, args=(server.accept()[0],), daemon=True).start()
"""

# Ends with exit code 0 after so many requests, as --max-requests does; what waits in its accept queue is reset.
SOME_REQUESTS = """
import os, socket, sys
server = socket.create_server((os.environ["HOST"], int(os.environ["PORT"])), backlog=100)
left = int(sys.argv[1])
posts = open(sys.argv[2], "ab", 0)
while left:
    connection = server.accept()[0]
    data = connection.recv(65536)
    if not data:
        connection.close()
        continue
    if data.startswith(b"POST"):
        posts.write(data.split()[1] + b"\\n")
    if b"/healthz" not in data:
        left -= 1
    connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\nConnection: close\\r\\n\\r\\nok")
    connection.close()
"""


@pytest.mark.parametrize("late_ms", ["0.5", "5", "50"])
@pytest.mark.parametrize("field", ["Transfer-Encoding: chunked", "Content-Length: 5"])
@pytest.mark.parametrize("express", ["on", "off"])
def test_a_body_that_cannot_be_reaches_no_other_client(field: str, late_ms: str, express: str, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(LATE_BODY)
    command = f"$python $dir/app.py '{field}' {late_ms}"
    with serving(web(size=1, command=command, health=""), tmp_path, environment={"LBPROXY_EXPRESS": express}) as lb:
        client = http.client.HTTPConnection("127.0.0.1", lb.port, timeout=10)
        seen: collections.Counter[int] = collections.Counter()
        for number in range(200):
            client.request("OPTIONS" if number % 2 else "GET", "/")
            response = client.getresponse()
            body = response.read()
            seen[response.status] += 1
            assert body == (b"" if number % 2 else b"hello")
        client.close()
        assert seen == {200: 100, 204: 100}


def ask_all(port: int, method: str, count: int, statuses: list[object]) -> None:
    for number in range(count):
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            body = b"x" if method == "POST" else None
            client.request(method, f"/{threading.get_ident()}-{number}", body=body)
            statuses.append(client.getresponse().status)
        except (OSError, http.client.HTTPException) as exc:
            statuses.append(repr(exc))
        finally:
            client.close()


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_backends_that_end_after_some_requests_lose_nothing_that_can_be_sent_again(method: str, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(SOME_REQUESTS)
    (tmp_path / "posts").touch()
    command = "$python $dir/app.py 20 $dir/posts"
    with serving(web(size=4, command=command), tmp_path) as lb:
        statuses: list[object] = []
        clients = [threading.Thread(target=ask_all, args=(lb.port, method, 50, statuses)) for _ in range(16)]
        for client in clients:
            client.start()
        done = lb.cli("reload")
        for client in clients:
            client.join()
        assert done.returncode == 0, done.stdout
        assert len(statuses) == 800
        if method == "GET":
            assert set(statuses) == {200}, collections.Counter(statuses)
        else:
            assert set(statuses) <= {200, 502}
            posts = (tmp_path / "posts").read_text().split()
            assert len(posts) == len(set(posts)), "a POST was sent twice"
        lb.wait_log('"backend.recycled"')
        assert '"backend.failed"' not in lb.log()
        assert socket.create_connection(("127.0.0.1", lb.port)).close() is None
