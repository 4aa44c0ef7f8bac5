"""A WebSocket backend that costs next to nothing: every frame goes back as it came, unmasked.

python loadtest/echo.py PORT

The backend trusts its client (loads.py): frames of under 126 bytes, all of one size, masked with zeros.
"""

import base64
import hashlib
import select
import socket
import sys
from contextlib import suppress

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
MASKED_HEAD = 6  # two bytes and the masking key


def accept_head(request: bytes) -> bytes:
    key = next(line.partition(b":")[2].strip() for line in request.split(b"\r\n") if line.lower()[:18] == KEY_FIELD)
    proof = base64.b64encode(hashlib.sha1(key + GUID).digest())
    upgrade = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    return upgrade + b"Sec-WebSocket-Accept: %b\r\n\r\n" % proof


KEY_FIELD = b"sec-websocket-key:"


def unmasked(data: bytes) -> bytes:
    """The same frames, as a server sends them."""
    out = []
    while data:
        size = data[1] & 0x7F
        out.append(data[:1] + bytes((size,)) + data[MASKED_HEAD : MASKED_HEAD + size])
        data = data[MASKED_HEAD + size :]
    return b"".join(out)


def main() -> None:
    listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=4096)
    listener.setblocking(False)
    epoll = select.epoll()
    epoll.register(listener, select.EPOLLIN)
    clients: dict[int, socket.socket] = {}
    upgraded: set[int] = set()
    while True:
        for fd, _ in epoll.poll():
            client = clients.get(fd)
            if client is None:
                with suppress(BlockingIOError):
                    client, _ = listener.accept()
                    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    client.setblocking(False)
                    clients[client.fileno()] = client
                    epoll.register(client, select.EPOLLIN)
                continue
            try:
                data = client.recv(4096)
                if data and fd in upgraded:
                    client.send(unmasked(data))
                elif data:
                    upgraded.add(fd)
                    client.send(accept_head(data))
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            if not data:
                upgraded.discard(fd)
                del clients[fd]
                client.close()


if __name__ == "__main__":
    main()
