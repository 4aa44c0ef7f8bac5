"""Sockets that a service manager passes, with a real lbproxy: served, kept over reloads and over restarts."""

import http.client
import os
import subprocess
from pathlib import Path

import psutil
from support.activation import activating, tcp, unix
from support.serve import LBPROXY, Serving, serving

CONFIG = """
[proxy]
workers = 2

[[listener]]
address = "fd:web"

[[listener]]
address = "fd:1"

[pool.web]
command = "$brittle"

[pool.web.health]
path = "/healthz"

[pool.web.reload]
min_ready = "0s"
"""


def get(port: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", "/")
    status = connection.getresponse().status
    connection.close()
    return status


def passed_inodes(lb: Serving) -> list[str]:
    return [os.readlink(f"/proc/{lb.pid}/fd/{fd}") for fd in (3, 4)]


def test_passed_sockets_serve_and_outlive_reloads_and_restarts(tmp_path: Path) -> None:
    web, local = tcp(reuse_port=True), unix(tmp_path / "public.sock")
    port = web.getsockname()[1]
    with (
        activating(tmp_path, web=web, local=local) as prefix,
        serving(CONFIG, tmp_path, prefix=prefix) as lb,
    ):
        lb.wait_log(f'"listeners":["fd:web (127.0.0.1:{port})","fd:1 (unix:{tmp_path}/public.sock)"]')
        clients = [http.client.HTTPConnection("127.0.0.1", port, timeout=20) for _ in range(40)]
        for client in clients:
            client.request("GET", "/")
            assert client.getresponse().read()
        assert min(worker["connections"] for worker in lb.status()["workers"]) >= 4, "evenly, with ReusePort=yes"
        curl = ["curl", "-sS", "-m", "20", "--unix-socket", str(tmp_path / "public.sock"), "http://a/"]
        assert subprocess.run(curl, capture_output=True, check=True).stdout
        before = passed_inodes(lb)
        assert lb.cli("reload").returncode == 0
        assert passed_inodes(lb) == before
        assert get(port) == 200
        for process in lb.processes():
            if process.pid != lb.pid:
                assert not [name for name in process.environ() if name.startswith("LISTEN_")]
                if "lbproxy.worker" not in process.cmdline():
                    links = [
                        os.readlink(f"/proc/{process.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{process.pid}/fd")
                    ]
                    assert not set(links) & set(before), process.cmdline()
        assert psutil.Process(lb.pid).is_running()

        lb.write_config(CONFIG.replace("fd:1", "fd:loca1"))
        refused = lb.cli("reload")
        assert refused.returncode == 1
        assert "cannot listen on fd:loca1: no socket is called 'loca1' (there is: web, local)" in refused.stdout
        lb.write_config(CONFIG.replace('[[listener]]\naddress = "fd:1"\n', ""))
        assert lb.cli("reload").returncode == 0
        lb.wait_log("fd:1 (local) was passed to lbproxy and no listener uses it: its clients wait")

        for client in clients:
            client.close()
        assert lb.stop() == 0
        waiting = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        waiting.request("GET", "/")
        lb.start({})
        assert waiting.getresponse().status == 200, "it waited in the service manager's socket"
        waiting.close()
        lb.wait_ready()


def test_a_socket_without_reuse_port_is_shared_and_said(tmp_path: Path) -> None:
    with (
        activating(tmp_path, web=tcp(reuse_port=False), local=unix(tmp_path / "public.sock")) as prefix,
        serving(CONFIG, tmp_path, prefix=prefix) as lb,
    ):
        lb.wait_log("fd:web is one socket for 2 workers, which get clients unevenly: its .socket unit has no ReusePort")


def test_a_start_without_the_socket_is_one_line(tmp_path: Path) -> None:
    config = tmp_path / "lb.toml"
    config.write_text(CONFIG.replace("$brittle", "sleep 9"))
    command = [*LBPROXY, "-c", str(config), "--control", str(tmp_path / "control"), "serve"]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert refused.returncode == 1
    assert refused.stderr == (
        "lbproxy: cannot listen on fd:web: lbproxy was started without sockets (LISTEN_FDS is not set)\n"
    )
