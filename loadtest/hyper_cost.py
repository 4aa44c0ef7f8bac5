"""What a front built of python-hyper's h2 and hpack would cost: a bare epoll loop that answers 12 bytes, and h2load.

python loadtest/hyper_cost.py

No TLS, no backend, no routing, no log: what it prints is the least that such a front would add to each request.
"""

import os
import select
import socket
import sys
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import h2.exceptions

from h2_loads import h2load
from measure import cpu_s

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.ports import free_port

BODY = b"Hello world\n"
ANSWER = [
    (":status", "200"),
    ("content-type", "text/plain"),
    ("content-length", str(len(BODY))),
    ("x-request-id", "0123456789abcdef0123456789abcdef"),
    ("via", "1.1 lbproxy"),
]
SECONDS = 3


def serve(listening: socket.socket) -> None:
    """Until it is killed."""
    epoll = select.epoll()
    epoll.register(listening, select.EPOLLIN)
    clients: dict[int, tuple[socket.socket, h2.connection.H2Connection]] = {}
    config = h2.config.H2Configuration(client_side=False, header_encoding=None)
    while True:
        for fd, _ in epoll.poll():
            if fd == listening.fileno():
                sock = listening.accept()[0]
                connection = h2.connection.H2Connection(config)
                connection.initiate_connection()
                sock.sendall(connection.data_to_send())
                clients[sock.fileno()] = sock, connection
                epoll.register(sock, select.EPOLLIN)
                continue
            sock, connection = clients[fd]
            data = sock.recv(65536)
            if not data:
                epoll.unregister(fd)
                clients.pop(fd)[0].close()
                continue
            try:
                for event in connection.receive_data(data):
                    if isinstance(event, h2.events.RequestReceived):
                        connection.send_headers(event.stream_id, ANSWER)
                        connection.send_data(event.stream_id, BODY, end_stream=True)
                sock.sendall(connection.data_to_send())
            except (h2.exceptions.ProtocolError, OSError):
                continue  # h2load is through, and its GOAWAY came with the last requests


def main() -> None:
    port = free_port()
    listening = socket.create_server(("127.0.0.1", port), backlog=128)
    pid = os.fork()
    if not pid:
        serve(listening)
    try:
        h2load(port, 1, connections=16, streams=10, scheme="http")
        before = cpu_s(pid)
        done = h2load(port, SECONDS, connections=16, streams=10, scheme="http")
        cost_us = (cpu_s(pid) - before) / done.operations * 1e6
        print(f"h2 {h2.__version__}: {cost_us:.1f} us for each request, {done.rate:.0f}/s")
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
