"""Certificates of a running lbproxy: which one is served, how it is replaced, what is said, and what nobody sees."""

import contextlib
import http.client
import os
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest
from support.certificates import Pair, authority, certificate
from support.serve import Serving, serving
from support.web import web


def anything() -> ssl.SSLContext:
    """Of a client that verifies nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def served(lb: Serving, name: str, port: str = "port2") -> str:
    """The first name of the certificate that a client gets who asks for `name`."""
    context = anything()
    connection = http.client.HTTPSConnection("127.0.0.1", lb.ports[port], timeout=20, context=context)
    with contextlib.closing(connection):
        sock = context.wrap_socket(lb.connect_to(port), server_hostname=name)
        connection.sock = sock
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == 200
        der = sock.getpeercert(binary_form=True)
    text = subprocess.run(
        ["openssl", "x509", "-inform", "der", "-noout", "-ext", "subjectAltName"],
        input=der,
        capture_output=True,
        check=True,
    ).stdout.decode()
    return text.split("DNS:")[1].split(",")[0].strip()


def listener(tls: str, number: int = 2, more: str = "") -> str:
    return f'[[listener]]\nname = "l{number}"\naddress = "127.0.0.1:$port{number}"\ntls = {{ {tls} }}\n{more}\n'


def put(source: Pair, target: Pair) -> None:
    shutil.copy(source.cert, target.cert)
    shutil.copy(source.key, target.key)


def count(lb: Serving, event: str, text: str = "") -> int:
    return sum(f'"{event}"' in line and text in line for line in lb.log().splitlines())


def test_certificates_are_replaced_while_connections_go_on(tmp_path: Path) -> None:
    fresh, last = (certificate(tmp_path / "spare", f"{name}.example") for name in ("fresh", "last"))
    pair = certificate(tmp_path / "served", "first.example", days=(-1, 5.5))
    both = certificate(tmp_path / "dir", "a.example")
    certificate(tmp_path / "dir", "*.b.example")
    more = listener(pair.tls) + listener(f'directory = "{tmp_path}/dir"', 3)
    with serving(web(workers=2, more=more), tmp_path) as lb:
        assert served(lb, "whatever.example") == "first.example"
        assert [served(lb, name, "port3") for name in ("a.example", "x.b.example", "x.y.b.example", "other")] == [
            "a.example",
            "*.b.example",
            "*.b.example",
            "*.b.example",
        ], "an exact name, then a wildcard, then the first (_.b.example.pem)"
        assert count(lb, "certificate.expiring", '"days_left":5') == 1
        (facts,) = lb.status()["listeners"][1]["certificates"]
        assert (facts["names"], facts["days_left"]) == (["first.example"], 5)
        assert "certificate first.example  until " in lb.cli("status").stdout

        # In place, noticed by itself. The key comes late.
        shutil.copy(fresh.cert, pair.cert)
        with lb.connect_to("port2") as sock:
            assert sock
            assert served(lb, "x") == "first.example"
        shutil.copy(fresh.key, pair.key)
        lb.wait_until(lambda: count(lb, "certificate.loaded", "fresh.example"))
        assert {served(lb, "x") for _ in range(6)} == {"fresh.example"}, "each worker has it"
        assert count(lb, "certificate.rejected") == 0

        # A broken one is said by a reload, and not served.
        pair.key.write_text("-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n")
        done = lb.cli("reload", "--config-only")
        assert done.returncode == 0
        assert f"certificate not loaded, what was served before goes on: {pair.key}" in done.stdout
        assert {served(lb, "x") for _ in range(4)} == {"fresh.example"}
        assert count(lb, "certificate.rejected") == 1

        # A reload reads at once, and links may lead elsewhere.
        for file, to in ((pair.cert, last.cert), (pair.key, last.key)):
            (tmp_path / "link").symlink_to(to)
            (tmp_path / "link").rename(file)
        assert lb.cli("reload", "--config-only").returncode == 0
        assert {served(lb, "x") for _ in range(4)} == {"last.example"}

        # A worker that is replaced has the newest, too.
        worker = lb.status()["workers"][0]["pid"]
        os.kill(worker, 9)
        lb.wait_until(lambda: worker not in [one["pid"] for one in lb.status()["workers"]] and lb._is_ready())
        assert {served(lb, "x") for _ in range(6)} == {"last.example"}

        # New files in a directory, and one that goes.
        certificate(tmp_path / "dir", "c.example")
        lb.wait_until(lambda: count(lb, "certificate.loaded", "c.example"))
        assert served(lb, "c.example", "port3") == "c.example"
        both.cert.unlink()
        both.key.unlink()
        lb.wait_until(lambda: "the certificate of a.example is not served any more" in lb.log())
        assert served(lb, "a.example", "port3") == "*.b.example"

        # A listener that is new must be good; settings of one that is there apply at once.
        gone = tmp_path / "gone.pem"
        lb.write_config(web(workers=2, more=more + listener(f'cert = "{gone}", key = "{gone}"', 4)))
        done = lb.cli("reload", "--config-only")
        assert done.returncode == 78
        assert f"error: listener.tls.cert: '{gone}' does not exist" in done.stdout + done.stderr
        lb.write_config(web(workers=2, more=listener(f'{pair.tls}, min_version = "1.3"')))
        assert lb.cli("reload", "--config-only").returncode == 0
        old = anything()
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with lb.connect_to("port2") as sock, pytest.raises(ssl.SSLError):
            old.wrap_socket(sock)
        assert_no_key_shows(lb, [fresh.key, last.key])


def assert_no_key_shows(lb: Serving, keys: list[Path]) -> None:
    shown = lb.log() + str(lb.status()) + lb.cli("events").stdout + lb.cli("check", "--effective").stdout
    for process in lb.processes():
        shown += " ".join(process.cmdline()) + str(process.environ())
        fds = [os.readlink(f"/proc/{process.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{process.pid}/fd")]
        held = sum("memfd:lbproxy-pem" in fd for fd in fds)
        assert (held > 0) == (process.pid == lb.pid), f"{process.name()} holds {held} keys and chains"
    for key in keys:
        secret = key.read_text().splitlines()[1]
        assert secret not in shown
    for file in Path(lb.state).rglob("*"):
        assert not file.is_file() or b"PRIVATE" not in file.read_bytes()


def test_a_broken_certificate_is_no_start(tmp_path: Path) -> None:
    one, two = (certificate(tmp_path, f"{name}.example") for name in "ab")
    config = web(more=listener(f'cert = "{one.cert}", key = "{two.key}"'))
    with serving(config, tmp_path, wait=False) as lb:
        assert lb.process is not None
        assert lb.process.wait(20) == 78
        lb.wait_until(lambda: "1 error" in lb.log())
        lb.wait_log("the private key is not that of the certificate")
        assert "Traceback" not in lb.log()
        checked = lb.cli("check")
        assert (checked.returncode, checked.stdout) == (78, lb.log())


def test_admin_speaks_tls_with_certificates_that_rotate(tmp_path: Path) -> None:
    ca = authority(tmp_path)
    pair = certificate(tmp_path / "served", "lb.example", by=ca)
    client = certificate(tmp_path, "client", by=ca)
    fresh = certificate(tmp_path / "fresh", "lb.example", "new.example", by=ca)
    admin = '[admin]\naddress = "127.0.0.1:$port2"\nhosts = ["lb.example", "new.example"]\n'

    def asked(lb: Serving, host: str = "lb.example", **more: str) -> subprocess.CompletedProcess[str]:
        options = [word for name, value in more.items() for word in (f"--{name}", value)]
        address = f"{host}:{lb.ports['port2']}"
        command = ["curl", "-sS", "--cacert", str(ca.cert), "--resolve", f"{address}:127.0.0.1", *options]
        return subprocess.run([*command, f"https://{address}/metrics"], capture_output=True, text=True, check=False)

    with serving(web(more=f"{admin}tls = {{ {pair.tls} }}"), tmp_path) as lb:
        done = asked(lb)
        assert (done.returncode, done.stderr) == (0, "")
        assert 'tls_certificate_not_after_timestamp_seconds{listener="admin",name="lb.example"}' in done.stdout
        assert asked(lb, "new.example").returncode != 0
        with lb.connect_to("port2") as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"this port speaks HTTPS" in sock.makefile("rb").read()
        with lb.connect_to("port2"), lb.connect_to("port2") as sock:
            sock.sendall(b"\x16\x03\x01")
            assert asked(lb).returncode == 0, "clients that stop in their handshake keep nobody out"
        put(fresh, pair)
        lb.wait_until(lambda: count(lb, "certificate.loaded", "new.example"))
        assert asked(lb, "new.example").returncode == 0
        lb.write_config(web(more=f'{admin}tls = {{ {pair.tls}, client_ca = "{ca.cert}" }}'))
        assert lb.cli("reload", "--config-only").returncode == 0
        assert asked(lb).returncode != 0
        assert asked(lb, cert=str(client.cert), key=str(client.key)).returncode == 0
        assert '"notice"' not in lb.log()
