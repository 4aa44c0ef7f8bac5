"""Real HAProxy and nginx on both sides: they announce their client by a PROXY header, or read who ours is."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.ports import free_port
from support.serve import Serving, serving
from support.web import web

ACCEPTING = web(size=1).replace(
    'address = "127.0.0.1:$port"',
    'address = "127.0.0.1:$port"\nproxy_protocol = "accept"\ntrusted_proxies = ["127.0.0.1"]',
)
NGINX = """
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off; pid {directory}/nginx.pid; error_log stderr; worker_processes 1;
events {{}}
"""
TEMPORARY = "".join(
    f"{name}_temp_path {{directory}}/{name}; " for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
)


@contextlib.contextmanager
def running(*command: str) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        yield
    finally:
        process.terminate()
        process.communicate(timeout=10)


def asked_from(address: str, port: int, lb: Serving, path: str = "/head") -> str:
    """The answer to a request that comes from this address of the loopback."""
    words = ["curl", "-sS", "--max-time", "5", "--interface", address, f"http://127.0.0.1:{port}{path}"]
    lb.wait_until(lambda: subprocess.run([*words, "--fail"], capture_output=True).returncode == 0)
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.replace("\r", "")


@pytest.mark.peer("haproxy", "nginx", "curl")
def test_haproxy_and_nginx_in_front(tmp_path: Path) -> None:
    with serving(ACCEPTING, tmp_path) as lb:
        ports = [free_port() for _ in range(3)]
        config = tmp_path / "haproxy.cfg"
        config.write_text(
            "defaults\n timeout connect 2s\n timeout client 5s\n timeout server 5s\n mode tcp\n"
            f"listen one\n bind 127.0.0.1:{ports[0]}\n server lb 127.0.0.1:{lb.port} send-proxy\n"
            f"listen two\n bind 127.0.0.1:{ports[1]}\n server lb 127.0.0.1:{lb.port} send-proxy-v2\n"
        )
        server = f"listen 127.0.0.1:{ports[2]}; proxy_protocol on; proxy_pass 127.0.0.1:{lb.port};"
        stream = f"stream {{ server {{ {server} }} }}"
        (tmp_path / "nginx.conf").write_text(NGINX.format(directory=tmp_path) + stream)
        with (
            running("haproxy", "-db", "-f", str(config)),
            running("nginx", "-c", str(tmp_path / "nginx.conf"), "-e", "stderr"),
        ):
            for port in ports:
                assert "X-Forwarded-For: 127.9.8.7\n" in asked_from("127.9.8.7", port, lb)


@pytest.mark.peer("haproxy", "nginx", "curl")
@pytest.mark.parametrize("express", ["on", "off"])
def test_haproxy_and_nginx_behind(express: str, tmp_path: Path) -> None:
    behind = {name: free_port() for name in ("haproxy", "nginx")}
    tcp = free_port()
    text = '[proxy]\nworkers = 1\n[[listener]]\naddress = "127.0.0.1:$port"\ntrusted_proxies = ["127.0.0.2"]\n'
    text += f'[[listener]]\naddress = "127.0.0.1:{tcp}"\nmode = "tcp"\npool = "haproxy-v2"\n'
    for name, port in behind.items():
        for version in ("v1", "v2"):
            text += f'[[route]]\npath = "/{name}/{version}"\npool = "{name}-{version}"\n'
            text += f'[pool.{name}-{version}]\ntargets = ["127.0.0.1:{port}"]\nsend_proxy = "{version}"\n'
            text += 'health = { path = "/", interval = "250ms" }\n'
    (tmp_path / "haproxy.cfg").write_text(
        "defaults\n timeout connect 2s\n timeout client 5s\n timeout server 5s\n mode http\n"
        f"frontend all\n bind 127.0.0.1:{behind['haproxy']} accept-proxy\n"
        ' http-request return status 200 content-type text/plain lf-string "%[src]>%[dst]:%[dst_port]"\n'
    )
    http = "return 200 $proxy_protocol_addr>$proxy_protocol_server_addr:$proxy_protocol_server_port;"
    (tmp_path / "nginx.conf").write_text(
        NGINX.format(directory=tmp_path)
        + f"http {{ access_log off; {TEMPORARY.format(directory=tmp_path)}"
        + f"server {{ listen 127.0.0.1:{behind['nginx']} proxy_protocol; location / {{ {http} }} }} }}"
    )
    with (
        running("haproxy", "-db", "-f", str(tmp_path / "haproxy.cfg")),
        running("nginx", "-c", str(tmp_path / "nginx.conf"), "-e", "stderr"),
        serving(text, tmp_path, environment={"LBPROXY_EXPRESS": express}) as lb,
    ):
        for name in behind:
            for version in ("v1", "v2"):
                path = f"/{name}/{version}"
                assert asked_from("127.9.8.7", lb.port, lb, path) == f"127.9.8.7>127.0.0.1:{lb.port}"
                # Two on one connection, from a proxy that is trusted: each has its own client.
                url = f"http://127.0.0.1:{lb.port}{path}"
                one, two = ([url, "-H", f"X-Forwarded-For: {ip}"] for ip in ("192.0.2.7", "6.6.6.6, 2001:db8::7"))
                words = ["curl", "-sS", "--interface", "127.0.0.2", *one, "--next", "-sS", "--interface", "127.0.0.2"]
                done = subprocess.run([*words, *two], capture_output=True, text=True, check=True)
                assert done.stdout == f"192.0.2.7>127.0.0.1:{lb.port}2001:db8::7>::ffff:127.0.0.1:{lb.port}"
        assert asked_from("127.9.8.7", tcp, lb, "/") == f"127.9.8.7>127.0.0.1:{tcp}"


def test_a_direct_client_without_a_header_is_let_go_of(tmp_path: Path) -> None:
    with serving(ACCEPTING, tmp_path) as lb:
        with lb.connect() as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.recv(100) == b""
        lb.wait_log("a client was let go of: no PROXY header")
