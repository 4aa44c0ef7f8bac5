"""Pools of fixed addresses: probed and balanced, never started or stopped."""

import socket
from pathlib import Path

from support.apps.scripted import scripted
from support.certificates import pem_file
from support.load import load
from support.ports import free_port
from support.receiver import receiver
from support.serve import Serving, serving

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def config(*addresses: str, more: str = "") -> str:
    quoted = ", ".join(f'"{address}"' for address in addresses)
    return f"""
[proxy]
workers = 1
[[listener]]
address = "127.0.0.1:$port"
[pool.legacy]
targets = [{quoted}]
[pool.legacy.health]
interval = "100ms"
timeout = "1s"
fall = 1
rise = 1
{more}
"""


def states(lb: Serving) -> list[str]:
    return [backend["state"] for backend in lb.backends("legacy")]


def test_both_addresses_serve_and_a_dead_one_is_left_out(tmp_path: Path) -> None:
    with scripted(OK) as one, scripted(OK) as two:
        both = config(f"127.0.0.1:{one.port}", f"127.0.0.1:{two.port}")
        with serving(both, tmp_path) as lb, load(lb.port) as clients:
            clients.wait_more(20)
            assert one.received
            assert two.received
            assert clients.lost == []


def test_an_address_that_goes_away_and_comes_back_is_noticed(tmp_path: Path) -> None:
    port = free_port()
    with (
        scripted(OK) as stays,
        serving(config(f"127.0.0.1:{stays.port}", f"127.0.0.1:{port}"), tmp_path, wait=False) as lb,
    ):
        lb.wait_log("serve.started")
        lb.wait_until(lambda: states(lb) == ["ready", "unhealthy"])
        assert lb.cli("status", "-q").returncode == 4
        with load(lb.port) as clients:
            with scripted(OK, port):
                lb.wait_until(lambda: states(lb) == ["ready", "ready"])
                assert lb.cli("status", "-q").returncode == 0
                clients.wait_more(20)
            lb.wait_until(lambda: states(lb) == ["ready", "unhealthy"])
            clients.wait_more(20)
        assert len(clients.lost) <= 4  # what was on it when it went


def test_a_unix_socket_can_be_a_target(tmp_path: Path) -> None:
    with serving(config("unix:app.sock"), tmp_path, wait=False) as lb, socket.socket(socket.AF_UNIX) as app:
        app.bind(str(tmp_path / "app.sock"))
        app.listen(10)
        lb.wait_log("backend.ready")
        with lb.connect() as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            while True:
                connection, _ = app.accept()
                with connection:
                    if connection.recv(65536):  # a probe only connects
                        connection.sendall(OK)
                        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
                        break


def test_a_reload_of_fixed_addresses_changes_them_without_a_lost_request(tmp_path: Path) -> None:
    with scripted(OK) as one, scripted(OK) as two:
        with serving(config(f"127.0.0.1:{one.port}"), tmp_path) as lb, load(lb.port) as clients:
            lb.write_config(config(f"127.0.0.1:{two.port}"))
            assert lb.cli("reload").returncode == 0
            served_before = len(two.received)
            clients.wait_more(20)
            assert clients.lost == []
            assert len(two.received) >= served_before
            assert lb.backends("legacy")[0]["address"] == f"127.0.0.1:{two.port}"
            assert lb.cli("reload", "legacy").returncode == 0
        assert clients.lost == []


def test_a_name_is_looked_up_and_one_that_is_not_found_holds_up_nobody(tmp_path: Path) -> None:
    with scripted(OK) as app:
        named = config(f"localhost:{app.port}", "no-such-name.invalid:1")
        with serving(named, tmp_path, wait=False) as lb:
            lb.wait_log("backend.ready")
            assert lb.get("/").status == 200
            (backend,) = lb.backends("legacy")
            assert (backend["address"], backend["target"]) == (f"127.0.0.1:{app.port}", f"localhost:{app.port}")
            lb.wait_log("the target no-such-name.invalid:1 cannot be resolved")
            assert lb.cli("status", "-q").returncode == 4
            lb.write_config(config(f"localhost:{app.port}"))
            assert lb.cli("reload", "--config-only").returncode == 0
            assert lb.cli("status", "-q").returncode == 0
            assert lb.backends("legacy")[0]["backend"] == backend["backend"], "an address that stays keeps its backend"
            express = lb.status()["workers"][0]["express"]
            assert "name" not in express["handed_over"]


def https(port: int, more: str) -> str:
    return config(
        f"https://127.0.0.1:{port}", more=f'path = "/healthz"\nstart_timeout = "2s"\n[pool.legacy.tls]\n{more}'
    )


def test_an_https_target_is_probed_and_served_once_its_certificate_is_good(tmp_path: Path) -> None:
    pem = pem_file(tmp_path, "127.0.0.1")
    with receiver(tls=pem) as app:
        app.answers = [200] * 1000
        with serving(https(app.port, "verify = true"), tmp_path, wait=False) as lb:
            lb.wait_log("serve.started")
            lb.wait_until(lambda: states(lb) == ["unhealthy"])
            (backend,) = lb.backends("legacy")
            assert backend["address"] == f"https://127.0.0.1:{app.port}"
            assert "TLS: self-signed certificate" in backend["why"] or "self signed" in backend["why"]
            answer = lb.get("/")
            assert (answer.status, answer.headers["proxy-status"].partition("; ")[2]) == (
                502,
                "error=tls_certificate_error",
            )
            lb.write_config(https(app.port, 'ca = "certificate.pem"'))
            assert lb.cli("reload", "--config-only").returncode == 0
            lb.wait_until(lambda: states(lb) == ["ready"])
            assert [lb.get("/").status for _ in range(3)] == [200] * 3
            lb.write_config(https(app.port, 'ca = "certificate.pem"\nserver_name = "other.internal"'))
            failed = lb.cli("reload")
            assert (failed.returncode, "Hostname mismatch" in failed.stdout) == (5, True), failed.stdout
            assert [lb.get("/").status for _ in range(3)] == [200] * 3, "by the old rules"
            lb.write_config(https(app.port, "verify = false"))
            assert "can read and change everything" in lb.cli("check").stdout
