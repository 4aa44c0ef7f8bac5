"""Passive ejection on a real lbproxy: a backend whose answers break is left out, with a floor, and comes back."""

from pathlib import Path

import pytest
from support.serve import serving

APP = """
import os, socket, sys
from pathlib import Path
listening = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=64)
me = os.environ["LBPROXY_SLOT"]
while True:
    sock, _ = listening.accept()
    head = b""
    while b"\\r\\n\\r\\n" not in head and (more := sock.recv(4096)):
        head += more
    if head and not Path(f"broken{me}").exists():
        sock.sendall(b"HTTP/1.1 200 OK\\r\\nConnection: close\\r\\nContent-Length: 1\\r\\n\\r\\n" + me.encode())
    sock.close()
"""
CONFIG = """
[proxy]
workers = 2

[[listener]]
address = "127.0.0.1:$port"

[admin]
address = "127.0.0.1:$port2"

[pool.web]
command = "$python app.py {port}"
size = 2
balance = "round_robin"
[pool.web.health]
active = ACTIVE
passive = { errors = 4, within = "60s", eject = "EJECT" }
"""


@pytest.mark.parametrize("active", ["false", "true"])
def test_a_backend_that_breaks_is_ejected_and_comes_back(tmp_path: Path, active: str) -> None:
    (tmp_path / "app.py").write_text(APP)
    config = CONFIG.replace("ACTIVE", active)
    with serving(config.replace("EJECT", "1h"), tmp_path) as lb:
        assert {lb.get().body for _ in range(8)} == {b"1", b"2"}
        (tmp_path / "broken2").touch()
        lb.wait_until(lambda: lb.get().status in (200, 502) and "web.2@1" in lb.log() and "ejected" in lb.log())
        assert {(answer.status, answer.body) for answer in (lb.get() for _ in range(20))} == {(200, b"1")}
        one, two = lb.backends()
        assert (one["state"], two["state"]) == ("ready", "unhealthy")
        assert two["why"].startswith("ejected: ")
        assert lb.cli("status", "-q").returncode == 4
        (tmp_path / "broken1").touch()  # the other one breaks as well: it is the last
        lb.wait_until(lambda: lb.get().status == 502 and "and stays: no more than 50%" in lb.log())
        assert lb.backends()[0]["state"] == "ready"
        for name in ("broken1", "broken2"):
            (tmp_path / name).unlink()
        lb.write_config(config.replace("passive", "#"))  # where nothing is ejected, nobody stays so
        assert lb.cli("reload", "--config-only").returncode == 0
        assert {lb.get().body for _ in range(8)} == {b"1", b"2"}
        assert 'lbproxy_backend_ejections_total{pool="web"} 1.0' in lb.api("GET", "/metrics").body.decode()
        assert lb.cli("status", "-q").returncode == 0
        lb.write_config(config.replace("EJECT", "200ms"))
        assert lb.cli("reload", "--config-only").returncode == 0
        (tmp_path / "broken2").touch()
        lb.wait_until(lambda: lb.get() and lb.log().count("its ejection is over") > 1)
