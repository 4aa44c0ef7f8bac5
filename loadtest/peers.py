"""The proxies of a comparison and the origin behind them: how each is configured, started, measured and ended.

One worker each, access logs off, addresses on the loopback. Knows processes; nothing of loads or ratios.
"""

import contextlib
import os
import select
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from string import Template

import psutil

from measure import cpu_s, pss_bytes

HERE = Path(__file__).parent
NODE_FOLDER = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "lbproxy-compare"
START_S = 20.0
STOP_S = 5.0

ORIGIN_NGINX = """
daemon off; worker_processes 1; worker_rlimit_nofile 20000; pid $folder/origin.pid; error_log $folder/origin.log;
events { worker_connections 10000; }
http {
    access_log off; keepalive_requests 1000000000; keepalive_timeout 600s; sendfile on; tcp_nodelay on;
    client_body_temp_path $folder/body; default_type application/octet-stream;
    server {
        listen 127.0.0.1:$port backlog=4096;
        location = / { default_type text/plain; return 200 "Hello world\\n"; }
        location = /post { default_type application/json; return 200 "{\\"stored\\": true}\\n"; }
        location /items/ {
            default_type text/html;
            add_header Set-Cookie "sid=$$request_id; Path=/; HttpOnly; SameSite=Lax";
            add_header Cache-Control "private, no-cache";
            add_header X-Content-Type-Options nosniff;
            add_header Vary Cookie;
            return 200 "$body";
        }
        location /files/ { alias $folder/files/; }
    }
}
"""

NGINX_HTTP = """
daemon off; worker_processes 1; worker_rlimit_nofile 20000; pid $folder/nginx.pid; error_log $folder/nginx.log;
events { worker_connections 10000; }
http {
    access_log off; keepalive_requests 1000000000; keepalive_timeout 600s; tcp_nodelay on;
    client_body_temp_path $folder/body; proxy_temp_path $folder/proxy; proxy_max_temp_file_size 0;
    upstream backend { server 127.0.0.1:$origin; keepalive 4096; keepalive_requests 1000000000; }
    server {
        listen 127.0.0.1:$port backlog=4096;
        location / {
            proxy_pass http://backend;
            proxy_http_version 1.1;
            proxy_set_header Host $$host;
            proxy_set_header X-Forwarded-For $$proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $$scheme;
            $connection
        }
    }
}
"""

NGINX_TCP = """
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off; worker_processes 1; worker_rlimit_nofile 20000; pid $folder/nginx.pid; error_log $folder/nginx.log;
events { worker_connections 10000; }
stream { server { listen 127.0.0.1:$port backlog=4096; proxy_pass 127.0.0.1:$origin; } }
"""

HAPROXY = """
global
    maxconn 9000
    nbthread 1
defaults
    mode $mode
    timeout connect 5s
    timeout client 600s
    timeout server 600s
    timeout tunnel 600s
    $options
frontend in
    bind 127.0.0.1:$port backlog 4096
    default_backend out
backend out
    server origin 127.0.0.1:$origin
"""

CADDY = """
{
    admin off
    auto_https off
    servers {
        timeouts {
            idle 10m
        }
    }
}
:$port {
    bind 127.0.0.1
    reverse_proxy 127.0.0.1:$origin {
        transport http {
            keepalive_idle_conns_per_host 4096
        }
    }
}
"""

NODE = """
const http = require('http'), proxy = require('http-proxy');
const agent = new http.Agent({keepAlive: true, maxFreeSockets: 4096});
const web = proxy.createProxyServer({target: 'http://127.0.0.1:$origin', agent, xfwd: true});
const ws = proxy.createProxyServer({target: 'http://127.0.0.1:$origin', xfwd: true});
web.on('error', (error, request, response) => response.destroy());
ws.on('error', () => {});
const server = http.createServer((request, response) => web.web(request, response));
server.on('upgrade', (request, socket, head) => ws.ws(request, socket, head));
server.keepAliveTimeout = 600000;
server.listen($port, '127.0.0.1', 4096);
"""

LBPROXY = """
[proxy]
workers = 1
control = "control"

[[listener]]
address = "127.0.0.1:$port"
mode = "$mode"
timeouts = { idle = "600s" }

[pool.web]
targets = ["127.0.0.1:$origin"]

[log]
access = "off"
"""


@dataclass(frozen=True, slots=True)
class Wiring:
    """What a proxy is to do. `mode`: http, tcp or websocket."""

    folder: Path
    port: int
    origin: int
    mode: str = "http"

    def fill(self, text: str, **values: str) -> str:
        given = {"folder": self.folder, "port": self.port, "origin": self.origin, **values}
        return Template(text).substitute(given)

    def write(self, name: str, text: str, **values: str) -> str:
        path = self.folder / name
        path.write_text(self.fill(text, **values))
        return str(path)


class Running:
    """One started program with everything that descends from it."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], port: int) -> None:
        self.name = name
        self.port = port
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    def pids(self) -> list[int]:
        return [self.pid, *(child.pid for child in psutil.Process(self.pid).children(recursive=True))]

    def cpu_s(self) -> float:
        """Of the whole tree: what the scheduler gave to its threads (the sum of their schedstat, and of those that
        have ended)."""
        return sum(map(cpu_s, self.pids()))

    def memory_bytes(self) -> int:
        return sum(map(pss_bytes, self.pids()))

    def worker_pid(self) -> int | None:
        """lbproxy's only: which process of the tree moves the bytes."""
        for pid in self.pids() if self.name == "lbproxy" else ():
            with contextlib.suppress(psutil.Error):
                if "lbproxy.worker" in psutil.Process(pid).cmdline():
                    return pid
        return None

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
    """For programs that tell nobody when they are ready, and for measuring idleness."""
    select.select((), (), (), seconds)


@contextlib.contextmanager
def started(name: str, command: list[str], wiring: Wiring, cpu: int) -> Iterator[Running]:
    """Run it on one CPU, wait until it listens, end it by its pids."""
    log = wiring.folder / f"{name}.out"
    with log.open("wb") as output:
        pinned = ["taskset", "-c", str(cpu), *command]
        process = subprocess.Popen(
            pinned, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=wiring.folder, start_new_session=True
        )
    running = Running(name, process, wiring.port)
    try:
        running.wait_listening()
        yield running
    except NotStarted as exc:
        raise NotStarted(f"{exc}: {log.read_text(errors='replace')[-300:].strip()}") from None
    finally:
        running.end()


@contextlib.contextmanager
def http_origin(wiring: Wiring, cpu: int) -> Iterator[Running]:
    """nginx with static answers: cheaper than any proxy in front of it."""
    files = wiring.folder / "files"
    files.mkdir()
    wiring.folder.chmod(0o755)  # its worker is nobody
    (files / "64k").write_bytes(b"lbproxy\n" * 8192)
    with (files / "100m").open("wb") as file:
        for _ in range(100):
            file.write(b"lbproxy\n" * (1 << 17))
    text = wiring.write("origin.conf", ORIGIN_NGINX, body="<p>item</p>" * 186)  # 2,046 bytes
    with started("origin", ["nginx", "-c", text], wiring, cpu) as running:
        yield running


@contextlib.contextmanager
def websocket_origin(wiring: Wiring, cpu: int) -> Iterator[Running]:
    command = [sys.executable, str(HERE / "echo.py"), str(wiring.port)]
    with started("echo", command, wiring, cpu) as running:
        yield running


# The proxies: what to run for a wiring. Raises NotStarted where that proxy cannot do it.


def _nginx(wiring: Wiring) -> list[str]:
    if wiring.mode == "tcp":
        if not Path("/usr/lib/nginx/modules/ngx_stream_module.so").exists():
            raise NotStarted("nginx has no stream module (Debian: libnginx-mod-stream)")
        return ["nginx", "-c", wiring.write("nginx.conf", NGINX_TCP)]
    upgrade = "proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;"
    connection = upgrade if wiring.mode == "websocket" else 'proxy_set_header Connection "";'
    return ["nginx", "-c", wiring.write("nginx.conf", NGINX_HTTP, connection=connection)]


def _haproxy(wiring: Wiring) -> list[str]:
    mode = "tcp" if wiring.mode == "tcp" else "http"
    options = "" if mode == "tcp" else "option forwardfor"
    return ["haproxy", "-db", "-f", wiring.write("haproxy.cfg", HAPROXY, mode=mode, options=options)]


def _caddy(wiring: Wiring) -> list[str]:
    if wiring.mode == "tcp":
        raise NotStarted("Debian's Caddy has no TCP mode")
    config = wiring.write("Caddyfile", CADDY)
    return [
        "env",
        "GOMAXPROCS=1",
        f"HOME={wiring.folder}",
        "caddy",
        "run",
        "--adapter",
        "caddyfile",
        "--config",
        config,
    ]


def _node(wiring: Wiring) -> list[str]:
    if wiring.mode == "tcp":
        raise NotStarted("http-proxy has no TCP mode")
    modules = NODE_FOLDER / "node_modules"
    if not (modules / "http-proxy").exists():
        NODE_FOLDER.mkdir(parents=True, exist_ok=True)
        npm = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(NODE_FOLDER), "http-proxy@1"]
        try:
            done = subprocess.run(npm, capture_output=True, text=True, timeout=60, check=False)
        except (OSError, subprocess.TimeoutExpired) as exc:
            raise NotStarted(f"npm: {exc}") from None
        if done.returncode:
            raise NotStarted(f"npm install http-proxy: {done.stderr.strip()[-200:]}")
    script = wiring.write("proxy.js", NODE)
    return ["env", f"NODE_PATH={modules}", "NODE_ENV=production", "node", "--no-deprecation", script]


def _lbproxy(wiring: Wiring) -> list[str]:
    mode = "tcp" if wiring.mode == "tcp" else "http"
    config = wiring.write("lb.toml", LBPROXY, mode=mode)
    return [sys.executable, "-c", "from lbproxy.cli.main import main; main()", "-c", config, "serve"]


PROXIES: dict[str, Callable[[Wiring], list[str]]] = {
    "nginx": _nginx,
    "haproxy": _haproxy,
    "caddy": _caddy,
    "node": _node,
    "lbproxy": _lbproxy,
}


def versions() -> dict[str, str]:
    asked = {
        "nginx": ["nginx", "-v"],
        "haproxy": ["haproxy", "-v"],
        "caddy": ["caddy", "version"],
        "node": ["node", "-v"],
    }
    told = {"lbproxy": f"Python {sys.version.split()[0]}"}
    for name, command in asked.items():
        if shutil.which(command[0]):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            lines = (done.stdout + done.stderr).strip().splitlines()
            told[name] = lines[0].removeprefix("nginx version: ") if lines else "?"
    return told
