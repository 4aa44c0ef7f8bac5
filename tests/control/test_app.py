"""The control process, for real: how it starts, what signals do, how it ends."""

import os
import signal
import socket
import subprocess
from pathlib import Path

from support.ports import free_port
from support.serve import LBPROXY, serving

ORIGIN = Path(__file__).with_name("origin.py")
CONFIG = f"""
[proxy]
pid_file = "lb.pid"
workers = 1
shutdown_timeout = "20s"

[log]
access = "off"

[[listener]]
address = "127.0.0.1:$port"

[pool.web]
command = "$python {ORIGIN}"
size = 2

[pool.web.health]
path = "/"

[pool.web.reload]
min_ready = "100ms"
"""


def test_it_serves_reloads_and_leaves_nothing_behind(tmp_path):
    with serving(CONFIG, tmp_path) as lb:
        assert (tmp_path / "lb.pid").read_text() == f"{lb.pid}\n"
        assert lb.get("/").body == b"generation 1\n"
        lb.signal(signal.SIGUSR2)
        lb.wait_log('"reload.finished"')
        assert lb.get("/").body == b"generation 2\n"
        assert {backend["generation"] for backend in lb.backends()} == {2}
        assert lb.stop() == 0
    assert not (tmp_path / "lb.pid").exists()


def test_a_second_serve_is_refused_with_the_pid_of_the_first(tmp_path):
    with serving(CONFIG, tmp_path) as lb:
        second = subprocess.run(lb.command("serve"), capture_output=True, text=True, timeout=20, check=False)
        assert second.returncode == 1
        assert second.stderr.splitlines() == [
            f"lbproxy: another lbproxy (pid {lb.pid}) holds the control socket {lb.control}"
        ]
        assert lb.get("/").status == 200


def test_a_port_in_use_is_one_line_and_leaves_nothing(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = tmp_path / "lb.toml"
        config.write_text(CONFIG.replace("$port", str(port)).replace("$python", "python3"))
        command = [*LBPROXY, "-c", str(config), "--control", str(tmp_path / "control"), "serve"]
        refused = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert refused.returncode == 1
    assert refused.stderr == f"lbproxy: cannot listen on 127.0.0.1:{port}: address already in use\n"
    assert sorted(os.listdir(tmp_path)) == ["lb.toml"]


def test_a_missing_env_file_is_told_before_anything_starts(tmp_path):
    config = tmp_path / "lb.toml"
    text = CONFIG.replace("$port", str(free_port())).replace("$python", "python3")
    config.write_text(text.replace("size = 2", 'size = 2\nenv_file = "none.env"'))
    refused = subprocess.run(
        [*LBPROXY, "-c", str(config), "serve"], capture_output=True, text=True, timeout=20, check=False
    )
    assert refused.returncode == 78
    assert "none.env" in refused.stderr
    assert sorted(os.listdir(tmp_path)) == ["lb.toml"]


def test_a_second_signal_stops_at_once(tmp_path):
    with serving(CONFIG, tmp_path) as lb:
        with lb.connect() as client:
            client.sendall(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
            lb.wait_until(lambda: any(backend["in_flight"] for backend in lb.backends()))
            lb.signal(signal.SIGTERM)
            lb.wait_log('"serve.stopping"')
            assert not lb.exited()
            lb.signal(signal.SIGINT)
            lb.wait_until(lb.exited, 5)
        assert lb.stop() == 1


def test_ttin_adds_a_backend_and_usr1_harms_nothing(tmp_path):
    with serving(CONFIG, tmp_path) as lb:
        before = len(lb.backends())
        lb.signal(signal.SIGTTIN)
        lb.wait_until(lambda: len(lb.backends()) == before + 1)
        lb.signal(signal.SIGUSR1)
        assert lb.get("/").status == 200
