"""The loads of a comparison that speak HTTP/2: h2load, clients that hold connections, and grpcio.

Each load takes a port and a time and returns what was done, as those of loads.py. Knows no proxy.
"""

import contextlib
import re
import shutil
import socket
import ssl
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from struct import unpack_from
from time import perf_counter
from typing import Any

from loads import Done, LoadFailed, done_of, held, output_of

METHOD = "/bench.Echo/Call.grpc"  # nghttpd tells content types by what a file's name ends with
MESSAGE = b"0123456789ab"
FRAMED = b"\0" + len(MESSAGE).to_bytes(4, "big") + MESSAGE
GRPC_FIELDS = ("content-type: application/grpc", "te: trailers")
DATA, HEADERS, SETTINGS = 0, 1, 4
END_STREAM = 1
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"  # with SETTINGS of no value
GET = b"\0\0\x0f\1\5\0\0\0\1\x82\x84\x87\x41\x09127.0.0.1"  # https, path /
GET = (len(GET) - 9).to_bytes(3, "big") + GET[3:]
SETTINGS_ACK = b"\0\0\0\4\1\0\0\0\0"


def h2load(port: int, seconds: int, *, connections: int, streams: int, path: str = "/", scheme: str = "https") -> Done:
    """Requests without a body, `streams` at a time on each connection."""
    return _h2load(
        ["-D", str(seconds), "-c", str(connections), "-m", str(streams)], f"{scheme}://127.0.0.1:{port}{path}"
    )


def grpc_calls(port: int, seconds: int, *, connections: int, streams: int) -> Done:
    """Unary calls with a message of 12 bytes. h2load knows no gRPC: it sends the framed message and counts answers."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(FRAMED)
        file.flush()
        fields = [option for field in GRPC_FIELDS for option in ("-H", field)]
        command = ["-D", str(seconds), "-c", str(connections), "-m", str(streams), "-d", file.name, *fields]
        return _h2load(command, f"http://127.0.0.1:{port}{METHOD}")


def h2_bulk(port: int, seconds: int, *, path: str) -> Done:
    """Downloads one after the other, on one connection with windows that never close."""
    url = f"https://127.0.0.1:{port}{path}"
    one = _h2load(["-n", "1", "-c", "1", "-m", "1"], url)
    return _h2load(["-n", str(max(2, int(seconds / max(one.seconds, 0.01)))), "-c", "1", "-m", "1"], url)


def _h2load(options: list[str], url: str) -> Done:
    if shutil.which("h2load") is None:
        raise LoadFailed("h2load is not on PATH (Debian: nghttp2-client)")
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        output = output_of(["h2load", *options, f"--log-file={log}", url], 60)
        rows = [line.split("\t") for line in log.read_text().splitlines()] if log.exists() else []
    took = re.search(r"^finished in ([0-9.]+)(us|ms|s|m)", output, re.MULTILINE)
    good = [int(row[2]) / 1e6 for row in rows if row[1] == "200"]
    if took is None or not good:
        raise LoadFailed(f"h2load: {output.strip()[-300:]}")
    spent_s = float(took[1]) * {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}[took[2]]
    return done_of(good, spent_s, failed=len(rows) - len(good))


def idle_h2(port: int, count: int) -> contextlib.AbstractContextManager[int]:
    """HTTP/2 connections over TLS after one request each. The context value is the number that are still open."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])

    def connect() -> socket.socket:
        sock = context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=10))
        if sock.selected_alpn_protocol() != "h2":
            raise LoadFailed("HTTP/2 was not agreed on")
        sock.sendall(PREFACE + GET)
        _read_answer(sock)
        return sock

    return held(count, connect)


def _read_answer(sock: socket.socket) -> None:
    """Up to the end of the only stream; SETTINGS are acknowledged."""
    data = b""
    while True:
        part = sock.recv(65536)
        if not part:
            raise LoadFailed("closed before the answer was complete")
        data += part
        while len(data) >= 9 and len(data) >= (end := 9 + int.from_bytes(data[:3], "big")):
            kind, flags = data[3:5]
            (stream,) = unpack_from(">I", data, 5)
            data = data[end:]
            if kind == SETTINGS and not flags:
                sock.sendall(SETTINGS_ACK)
            elif kind in (DATA, HEADERS) and stream == 1 and flags & END_STREAM:
                return


def grpcio_calls(port: int, seconds: int, *, threads: int) -> Done:
    """Unary calls of grpcio's own client: `threads` at a time over one channel. The client is the slow part."""
    import grpc

    def same(message: bytes) -> bytes:
        return message

    took: list[float] = []
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call: Callable[..., Any] = channel.unary_unary(METHOD, request_serializer=same, response_deserializer=same)
        begun = perf_counter()
        ends = begun + seconds

        def work() -> None:
            while (now := perf_counter()) < ends:
                try:
                    call(MESSAGE, timeout=5)
                except grpc.RpcError:
                    return
                took.append(perf_counter() - now)

        workers = [threading.Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return done_of(took, perf_counter() - begun)
