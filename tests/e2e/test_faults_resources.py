"""Ports and descriptors: none left, taken by a stranger, or inherited by somebody who should not have them."""

import contextlib
import itertools
import json
import os
import resource
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from support.load import load
from support.ports import free_port
from support.serve import Serving, serving
from support.web import web

# -- ports


def with_ports(count: int, **texts: str) -> tuple[str, list[int]]:
    """A configuration with so many ports for its backends, all free now."""
    first = next(port for port in iter(free_port, 0) if all(_is_free(port + more) for more in range(count)))
    ports = list(range(first, first + count))
    return web(proxy=f'ports = "{ports[0]}-{ports[-1]}"', **texts), ports


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_reload_without_a_free_port_is_rolled_back_and_says_whose_they_are(tmp_path: Path) -> None:
    config, ports = with_ports(2)
    with serving(config, tmp_path) as lb, load(lb.port, clients=2) as clients:
        before = [one["pid"] for one in lb.backends()]
        done = lb.cli("reload")
        assert done.returncode == 5
        said = f"no free port in {ports[0]}-{ports[1]} ([proxy] ports): 2 held by backends, 0 by other programs"
        assert said in done.stdout
        assert done.stdout.splitlines()[-1].startswith("rolled back web to generation 1")
        assert [one["pid"] for one in lb.backends()] == before
        clients.wait_more(10)
        assert clients.lost == []


def test_a_backend_that_finds_no_port_is_started_when_there_is_one(tmp_path: Path) -> None:
    config, ports = with_ports(2, restart='backoff = { first = "50ms", max = "200ms" }\ngive_up = { crashes = 100 }')
    with socket.create_server(("127.0.0.1", ports[1])) as other, serving(config, tmp_path, wait=False) as lb:
        lb.wait_log("1 held by backends, 1 by other programs")
        lb.wait_until(lambda: lb.cli("status", "-q").returncode == 4 and lb.get("/whoami").status == 200)
        other.close()
        lb.wait_ready(5)


LATE = "sh -c 'while [ ! -e $dir/go ]; do sleep 0.05; done; exec $brittle'"
STRANGERS_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\nstranger\n"


@pytest.mark.parametrize("health", ["", 'path = "/healthz"'])
def test_a_stranger_on_the_port_that_a_backend_was_to_have_is_never_taken_for_it(tmp_path: Path, health: str) -> None:
    """It answers every probe; ready must mean our child. Another port is found."""
    with serving(web(size=1, command=LATE, health=health), tmp_path, wait=False) as lb:
        lb.wait_log('"backend.starting"')
        address = lb.backends()[0]["address"]
        host, port = address.split(":")
        with socket.create_server((host, int(port))) as stranger:
            stranger.settimeout(5)
            client, _ = stranger.accept()
            client.recv(65536) if health else None
            client.sendall(STRANGERS_ANSWER)
            client.close()
            lb.wait_log("not by this backend", 5)
            lb.wait_log(f"port {port} is held by pid {os.getpid()}")
            (tmp_path / "go").touch()
            lb.wait_ready(8)
            assert lb.get("/whoami").json()["pool"] == "web"
            (now,) = lb.backends()
            assert now["address"] != address
            assert now["restarts"] == 0, "it is not the backend's fault"


# -- descriptors

SHOW = """
import json, os, sys
found = {}
for name in os.listdir("/proc/self/fd"):
    try:
        found[name] = os.readlink(f"/proc/self/fd/{name}")
    except OSError:
        pass  # that of the list itself
with open(sys.argv[1], "w") as file:
    json.dump(found, file)
os.execv(sys.argv[2], sys.argv[2:])
"""


def test_a_backend_inherits_what_its_bind_needs_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "show.py").write_text(SHOW)
    more = "".join(
        f"""
[pool.{bind}]
command = "$python $dir/show.py $dir/held.{bind} $brittle"
bind = "{bind}"
health = {{ path = "/healthz" }}
"""
        for bind in ("tcp", "unix", "fd")
    )
    config = web(size=1, more=more).replace('name = "public"', 'name = "public"\npool = "web"')
    with serving(config, tmp_path, prefix=leaking(tmp_path)) as lb:
        assert lb.cli("reload").returncode == 0  # the second generation is made while everything is open
        for bind, expected in (("tcp", "012"), ("unix", "012"), ("fd", "0123")):
            held = json.loads((tmp_path / f"held.{bind}").read_text())
            assert "".join(sorted(held)) == expected, held
            assert held["0"] == "/dev/null"
            assert held["1"].startswith("pipe:")
            assert held["1"] == held["2"]
            assert held.get("3", "socket:").startswith("socket:")
        for pid in lb.pids_of("lbproxy.worker") | lb.pids_of("lbproxy.supervise.guard"):
            assert str(tmp_path / "leak") not in {_link(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()}


def leaking(directory: Path) -> list[str]:
    """A command that runs the next one with descriptors that it does not know of."""
    return ["sh", "-c", f'exec "$@" 7>{directory}/leak 9>{directory}/leak', "sh"]


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""


def limit_descriptors(pid: int, more: int) -> int:
    """Leave `pid` room for `more`. Returns what it had before."""
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    held = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    free = (number for number in itertools.count() if number not in held)
    limit = next(itertools.islice(free, more, None))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, hard))
    return hard


def allow(pid: int, hard: int) -> None:
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (hard, hard))


def worker_of(lb: Serving) -> int:
    (worker,) = lb.status()["workers"]
    pid: int = worker["pid"]
    return pid


def test_a_worker_without_descriptors_accepts_again_when_it_has_some(tmp_path: Path) -> None:
    """Its limit falls while it runs, and later rises: who was connected is served on, who waits is served then."""
    with serving(web(size=1), tmp_path) as lb, lb.connect() as early:
        worker = worker_of(lb)
        early.sendall(b"GET /whoami HTTP/1.1\r\nHost: a\r\n\r\n")
        assert early.recv(65536).startswith(b"HTTP/1.1 200 ")
        hard = limit_descriptors(worker, 0)
        with lb.connect() as late:
            late.sendall(b"GET /whoami HTTP/1.1\r\nHost: a\r\n\r\n")
            lb.wait_log('"accept.paused"', 5)
            lb.wait_log("open files")
            assert "accept.resumed" not in lb.log()
            allow(worker, hard)
            assert late.recv(65536).startswith(b"HTTP/1.1 200 ")
        lb.wait_log('"accept.resumed"', 5)
        early.sendall(b"GET /whoami HTTP/1.1\r\nHost: a\r\n\r\n")
        assert early.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert worker_of(lb) == worker
        lb.wait_until(lambda: lb.log().count('"accept.paused"') == 1)


def test_a_worker_without_descriptors_survives_a_reload(tmp_path: Path) -> None:
    """It could not take the listening sockets once more: a table must not cost the clients that it has."""
    with serving(web(size=1), tmp_path) as lb, contextlib.ExitStack() as opened:
        worker = worker_of(lb)
        hard = limit_descriptors(worker, 3)
        clients = [opened.enter_context(lb.connect()) for _ in range(8)]
        lb.wait_log('"accept.paused"', 5)
        assert lb.cli("reload").returncode == 0
        allow(worker, hard)
        for client in clients:
            client.sendall(b"GET /whoami HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert worker_of(lb) == worker


@pytest.mark.parametrize("more", [0, 3])
def test_control_without_descriptors_serves_on_and_reloads_later(tmp_path: Path, more: int) -> None:
    with serving(web(), tmp_path) as lb, load(lb.port, clients=2) as clients:
        before = [one["pid"] for one in lb.backends()]
        hard = limit_descriptors(lb.pid, more)
        with subprocess.Popen(lb.command("reload"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as asking:
            os.kill(before[0], signal.SIGKILL)
            clients.wait_more(100)
            allow(lb.pid, hard)
            assert asking.wait(15) in (0, 5), "it was begun at last, and its outcome is told"
        lb.wait_ready(8)
        assert lb.cli("reload").returncode == 0
        assert len(clients.lost) <= 2, clients.lost
        assert "Traceback" not in lb.log()
