"""Certificates that change under load, in every way that files change: no handshake and no request may fail.

python loadtest/rotate.py --rotations 1000 --clients 8

Each rotation is one of: cert and key written over in place, renamed over, or a link to another directory swapped (as
certbot and Kubernetes do); every fourth is read by `lbproxy reload --config-only` at once, the others by the look once
a second. The next one follows when `lbproxy status` shows the new serial number. Clients connect, verify, ask twice,
and connect anew; a keep-alive connection stays open all the time.
"""

import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from functools import partial
from pathlib import Path
from time import monotonic

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.certificates import Pair, authority, certificate

import rig

NAME = "lb.example"
REQUEST = f"GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode()
CONFIG = rig.CONFIG.replace(
    'address = "127.0.0.1:$port"',
    'address = "127.0.0.1:$port"\n[[listener]]\nname = "secured"\naddress = "127.0.0.1:$port2"\n'
    'tls = {{ cert = "served/current/cert.pem", key = "served/current/key.pem" }}',
)
VERSIONS = 12
WAIT_S = 20.0
HOW = ("in place", "renamed", "linked", "in place, and a reload")


class Clients:
    """Threads, each with one connection after the other."""

    def __init__(self, port: int, ca: Path, number: int) -> None:
        self.context = ssl.create_default_context(cafile=str(ca))
        self.port = port
        self.failures: list[str] = []
        self.handshakes = self.requests = 0
        self.serials: Counter[str] = Counter()
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=self._connect_again) for _ in range(number)]
        self.threads.append(threading.Thread(target=self._stay))

    def __enter__(self) -> "Clients":
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join()

    def _connect_again(self) -> None:
        while not self.stop.is_set():
            try:
                with self._connected() as sock:
                    for _ in range(2):
                        self._ask(sock)
            except (OSError, AssertionError) as exc:
                self.failures.append(repr(exc))

    def _stay(self) -> None:
        try:
            with self._connected() as sock:
                while not self.stop.wait(0.05):
                    self._ask(sock)
        except (OSError, AssertionError) as exc:
            self.failures.append(f"the connection that stays: {exc!r}")

    def _connected(self) -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        try:
            sock = self.context.wrap_socket(plain, server_hostname=NAME)
        except BaseException:
            plain.close()
            raise
        self.handshakes += 1
        found = sock.getpeercert()
        self.serials[str(found["serialNumber"]) if found else ""] += 1
        return sock

    def _ask(self, sock: ssl.SSLSocket) -> None:
        sock.sendall(REQUEST)
        answer = b""
        while b"\r\n\r\n" not in answer:
            data = sock.recv(65536)
            assert data, f"cut after {answer!r}"
            answer += data
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        length = next(
            int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
        )
        while len(body) < length:
            data = sock.recv(65536)
            assert data, "the body is cut"
            body += data
        self.requests += 1


def put(pair: Pair, served: Path, number: int) -> None:
    """`served/current` is a link to a directory, in which the files are."""
    here = served / "current"
    match HOW[number % len(HOW)]:
        case "renamed":
            for source, name in ((pair.cert, "cert.pem"), (pair.key, "key.pem")):
                shutil.copy(source, served / "fresh")
                os.rename(served / "fresh", here / name)
        case "linked":
            fresh = served / f"version-{number}"
            fresh.mkdir()
            shutil.copy(pair.cert, fresh / "cert.pem")
            shutil.copy(pair.key, fresh / "key.pem")
            (served / "link").symlink_to(fresh.name)
            os.rename(served / "link", here)
        case _:
            shutil.copy(pair.cert, here / "cert.pem")
            shutil.copy(pair.key, here / "key.pem")


def serial_of(pair: Pair) -> str:
    done = subprocess.run(
        ["openssl", "x509", "-in", str(pair.cert), "-noout", "-serial"], capture_output=True, text=True, check=True
    )
    return done.stdout.strip().partition("=")[2]


def rotate(lb: rig.Serving, pairs: list[tuple[Pair, str]], rotations: int, folder: Path) -> list[float]:
    """Returns how long each took until it was served."""
    took_s = []
    for number in range(1, rotations + 1):
        pair, serial = pairs[number % len(pairs)]
        begun = monotonic()
        put(pair, folder / "served", number)
        if HOW[number % len(HOW)].endswith("reload"):
            lb.cli("reload", "--config-only")
        lb.wait_until(partial(is_served, lb, serial), WAIT_S)
        took_s.append(monotonic() - begun)
    return took_s


def is_served(lb: rig.Serving, serial: str) -> bool:
    found: bool = lb.status()["listeners"][1]["certificates"][0]["serial"] == serial
    return found


def main() -> None:
    options = rig.arguments(__doc__, rotations=1000, clients=8, workers=2)
    report = rig.Report("rotate")
    folder = Path(tempfile.mkdtemp(prefix="lbproxy-rotate-"))
    ca = authority(folder / "made")
    pairs = [certificate(folder / "made", NAME, by=ca, file=f"v{number}") for number in range(VERSIONS)]
    named = [(pair, serial_of(pair)) for pair in pairs]
    (folder / "served/version-0").mkdir(parents=True)
    (folder / "served/current").symlink_to("version-0")
    put(pairs[0], folder / "served", 0)
    config = CONFIG.replace("served/", f"{folder}/served/")
    try:
        with rig.proxied(options, config) as lb, Clients(lb.ports["port2"], ca.cert, options.clients) as clients:
            took_s = sorted(rotate(lb, named, options.rotations, folder))
            rejected = lb.log().count('"certificate.rejected"')
            loaded = lb.log().count('"certificate.loaded"')
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    report.line(
        "rotations", f"{len(took_s)}, served after {took_s[len(took_s) // 2]:.2f} s, at most {took_s[-1]:.2f} s"
    )
    report.line("events", f"{loaded} loaded, {rejected} rejected")
    report.line(
        "clients", f"{clients.handshakes} handshakes, {clients.requests} requests, {len(clients.serials)} versions"
    )
    report.promise(not clients.failures, f"{len(clients.failures)} failed: {clients.failures[:5]}")
    report.promise(len(clients.serials) == VERSIONS, f"only {len(clients.serials)} versions were seen")
    report.end()


main()
