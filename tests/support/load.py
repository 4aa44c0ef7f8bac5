"""Clients that go on asking while a test breaks things, and remember every answer that was not 200.

    with load(lb.port) as clients:
        lb.cli("reload")
        clients.wait_more(100)
    assert clients.lost == []

And `ab`, as its users run it.
"""

import contextlib
import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from time import monotonic

PAUSE_S = 0.01  # of each client between two requests: the machine has other things to do
LONGEST_WAIT_S = 30.0


@dataclass(frozen=True, slots=True)
class Lost:
    """One request that was not answered with 200."""

    at: float  # time.monotonic()
    how: str

    def __repr__(self) -> str:
        return self.how


class Clients:
    def __init__(self, port: int, path: str, *, keep_alive: bool) -> None:
        self.lost: list[Lost] = []
        self.answered = 0
        self.bodies: dict[bytes, int] = {}
        self._port = port
        self._keep_alive = keep_alive
        closing = "" if keep_alive else "Connection: close\r\n"
        self._request = f"GET {path} HTTP/1.1\r\nHost: test\r\n{closing}\r\n".encode()
        self._stop = threading.Event()
        self._more = threading.Condition()

    def wait_more(self, count: int) -> None:
        """Wait until `count` more requests have been answered or lost."""
        with self._more:
            goal = self.answered + len(self.lost) + count
            reached = self._more.wait_for(lambda: self.answered + len(self.lost) >= goal, LONGEST_WAIT_S)
        assert reached, f"{count} more answers did not come; lost so far: {self.lost}"

    def run(self) -> None:
        """One client: it asks until the end."""
        sock: socket.socket | None = None
        stays = self._keep_alive
        while not self._stop.wait(PAUSE_S):
            try:
                sock = sock or socket.create_connection(("127.0.0.1", self._port), timeout=LONGEST_WAIT_S)
                status, body, stays = self._ask(sock)
                how = "" if status == 200 else f"status {status}: {body[:100]!r}"
            except OSError as exc:
                how, body = repr(exc), b""
            if how or not stays:
                if sock is not None:
                    sock.close()
                sock = None
            with self._more:
                if how:
                    self.lost.append(Lost(monotonic(), how))
                else:
                    self.answered += 1
                    self.bodies[body] = self.bodies.get(body, 0) + 1
                self._more.notify_all()
        if sock is not None:
            sock.close()

    def stop(self) -> None:
        self._stop.set()

    def _ask(self, sock: socket.socket) -> tuple[int, bytes, bool]:
        """The status, the body, and whether the connection stays open."""
        sock.sendall(self._request)
        data = b""
        while (end := data.find(b"\r\n\r\n")) < 0:
            data += _received(sock, "head", data)
        head, data = data[:end], data[end + 4 :]
        found = re.search(rb"\r\ncontent-length: (\d+)", head, re.IGNORECASE)
        length = int(found[1]) if found else 0
        while len(data) < length:
            data += _received(sock, "body", data)
        stays = self._keep_alive and not re.search(rb"\r\nconnection: close\b", head, re.IGNORECASE)
        return int(head[9:12]), data, stays


def _received(sock: socket.socket, part: str, so_far: bytes) -> bytes:
    data = sock.recv(65536)
    if not data:
        raise ConnectionError(f"closed in the {part}, {len(so_far)} bytes of it came")
    return data


@contextlib.contextmanager
def load(port: int, *, clients: int = 4, path: str = "/whoami", keep_alive: bool = True) -> Iterator[Clients]:
    """Run `clients` threads; each has had an answer when the block begins."""
    asking = Clients(port, path, keep_alive=keep_alive)
    threads = [threading.Thread(target=asking.run, daemon=True) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        asking.wait_more(clients)
        yield asking
    finally:
        asking.stop()
        for thread in threads:
            thread.join(LONGEST_WAIT_S)


@dataclass(frozen=True, slots=True)
class AbReport:
    complete: int
    failed: int
    others: int  # answers that were not 2xx
    keep_alive: int
    output: str


@contextlib.contextmanager
def ab(port: int, requests: int, concurrency: int, *options: str) -> Iterator[list[AbReport]]:
    """Run `ab -l` during the block; after the block its report is in the list."""
    url = f"http://127.0.0.1:{port}/whoami"
    command = ["ab", "-l", "-q", "-s", "20", "-n", str(requests), "-c", str(concurrency), *options, url]
    reports: list[AbReport] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield reports
            output, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    reports.append(
        AbReport(
            _number(output, "Complete requests"),
            _number(output, "Failed requests"),
            _number(output, "Non-2xx responses"),
            _number(output, "Keep-Alive requests"),
            output,
        )
    )


def _number(output: str, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+)", output, re.MULTILINE)
    return int(found[1]) if found else 0
