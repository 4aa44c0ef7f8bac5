"""Debian's pebble, an ACME authority for tests, with pebble-challtestsrv as its DNS: all on loopback.

with running(prepare(tmp_path, http_port=lb_port)) as ca:
    tls = { acme = { domains = ["a.example"], server = ca.directory, ca = ca.trust } }
"""

import contextlib
import json
import os
import ssl
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from support.certificates import authority, certificate
from support.ports import free_port

LONGEST_START_S = 20.0


@dataclass(slots=True)
class Pebble:
    """`trust`: the authority of pebble's own certificate. `port`: of its API."""

    folder: Path
    port: int
    management: int
    dns: int
    dns_management: int
    trust: Path

    @property
    def directory(self) -> str:
        return f"https://127.0.0.1:{self.port}/dir"

    def roots(self) -> Path:
        """A file with the root that it signs with; a new one at each start."""
        file = self.folder / "roots.pem"
        file.write_bytes(self._get(f"https://127.0.0.1:{self.management}/roots/0"))
        return file

    def set_dns(self, path: str, values: dict[str, Any]) -> None:
        request = urllib.request.Request(f"http://127.0.0.1:{self.dns_management}/{path}", json.dumps(values).encode())
        with urllib.request.urlopen(request, timeout=10) as answer:
            answer.read()

    def is_up(self) -> bool:
        with contextlib.suppress(OSError):
            return bool(self._get(self.directory))
        return False

    def _get(self, url: str) -> bytes:
        context = ssl.create_default_context(cafile=str(self.trust))
        with urllib.request.urlopen(url, timeout=10, context=context) as answer:
            return bytes(answer.read())


def prepare(folder: Path, *, http_port: int, valid_s: int = 90 * 86_400, blocked: tuple[str, ...] = ()) -> Pebble:
    """Choose the ports and write the files; nothing runs yet."""
    ca = authority(folder, "Pebble API")
    own = certificate(folder, "127.0.0.1", by=ca, file="pebble")
    made = Pebble(folder, *(free_port() for _ in range(4)), trust=ca.cert)
    config = {
        "listenAddress": f"127.0.0.1:{made.port}",
        "managementListenAddress": f"127.0.0.1:{made.management}",
        "certificate": str(own.cert),
        "privateKey": str(own.key),
        "httpPort": http_port,
        "tlsPort": free_port(),
        "ocspResponderURL": "",
        "externalAccountBindingRequired": False,
        "domainBlocklist": list(blocked),
        "certificateValidityPeriod": valid_s,
    }
    (folder / "pebble.json").write_text(json.dumps({"pebble": config}))
    return made


@contextlib.contextmanager
def running(pebble: Pebble, *, rejects_nonces: bool = False) -> Iterator[Pebble]:
    """`rejects_nonces`: one in twenty that are good, as it does by itself."""
    dns = f"127.0.0.1:{pebble.dns}"
    names = ["-dns01", dns, "-management", f"127.0.0.1:{pebble.dns_management}", "-defaultIPv6", ""]
    names += ["-http01", "", "-https01", "", "-tlsalpn01", ""]
    commands = [
        ["pebble-challtestsrv", *names],
        ["pebble", "-config", str(pebble.folder / "pebble.json"), "-dnsserver", dns],
    ]
    environment = {**os.environ, "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "5" if rejects_nonces else "0"}
    started: list[subprocess.Popen[bytes]] = []
    paused = threading.Event()  # never set
    with open(pebble.folder / "pebble.log", "ab") as log:
        try:
            options: dict[str, Any] = {"stdout": log, "stderr": log, "cwd": pebble.folder, "env": environment}
            started.extend(subprocess.Popen(command, **options) for command in commands)
            deadline = monotonic() + LONGEST_START_S
            while not pebble.is_up():
                assert monotonic() < deadline, (pebble.folder / "pebble.log").read_text()
                paused.wait(0.05)
            yield pebble
        finally:
            for process in started:
                process.kill()
                process.wait()
