"""Certificates by ACME, from a real authority (pebble), through a real `serve`: ordered, renewed under load, kept."""

import signal
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest
from support.pebble import Pebble, prepare, running
from support.ports import free_port
from support.serve import Serving, serving

VALID_S = 24

CONFIG = """
[proxy]
workers = 2
[log]
access = "off"
[[listener]]
name = "plain"
address = "127.0.0.1:{plain}"
redirect = "https"
[[listener]]
name = "secure"
address = "127.0.0.1:$port2"
tls = {{ acme = {{ domains = {domains}, email = "ops@a.example", server = "{ca.directory}", ca = "{ca.trust}" }} }}
[pool.web]
command = "$origin"
"""


def fetched(lb: Serving, roots: Path, name: str = "a.example") -> str:
    """The serial number of the certificate, verified, of a connection that has got an answer."""
    context = ssl.create_default_context(cafile=str(roots))
    with lb.connect_to("port2") as plain, context.wrap_socket(plain, server_hostname=name) as secured:
        secured.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert secured.recv(12) == b"HTTP/1.1 200"
        certificate = secured.getpeercert()
        assert certificate is not None
        return str(certificate["serialNumber"])


class Load:
    """Connection after connection, each with a handshake of its own; nothing may fail."""

    def __init__(self, lb: Serving, roots: Path) -> None:
        self.serials: list[str] = []
        self.failures: list[Exception] = []
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(lb, roots))
        self._thread.start()

    def _run(self, lb: Serving, roots: Path) -> None:
        while not self._ends.wait(0.01):
            try:
                self.serials.append(fetched(lb, roots))
            except (OSError, AssertionError) as exc:
                self.failures.append(exc)

    def end(self) -> None:
        self._ends.set()
        self._thread.join()


def acme(lb: Serving) -> dict[str, object]:
    return dict(lb.status()["listeners"][1]["acme"])


def shown(lb: Serving) -> str:
    """The certificate that is served, whether or not it is good."""
    return ssl.get_server_certificate(("127.0.0.1", lb.ports["port2"]), timeout=10)


def ordering(lb: Serving) -> list[psutil.Process]:
    """The process that orders certificates."""
    children = psutil.Process(lb.pid).children()
    return [child for child in children if child.cmdline()[-1:] == ["lbproxy.acme"]]


def loaded(lb: Serving) -> int:
    return lb.log().count('"certificate.loaded"')


def config(ca: Pebble, plain: int, *domains: str) -> str:
    return CONFIG.format(domains=list(domains), ca=ca, plain=plain)


@pytest.mark.long
@pytest.mark.peer("pebble", "pebble-challtestsrv")
def test_a_certificate_comes_is_renewed_under_load_and_stays(tmp_path: Path) -> None:
    plain = free_port()
    ca = prepare(tmp_path / "ca", http_port=plain, valid_s=VALID_S, blocked=("blocked.example",))
    with serving(config(ca, plain, "a.example", "b.example"), tmp_path / "lb") as lb:
        lb.wait_log("could not be ordered: the authority cannot be asked: connection refused")
        context = ssl.create_default_context()
        with pytest.raises(ssl.SSLCertVerificationError, match="self-signed"), lb.connect_to("port2") as raw:
            context.wrap_socket(raw, server_hostname="a.example")
        assert "acme a.example, b.example" in lb.cli("status").stdout
        with running(ca, rejects_nonces=True):
            lb.wait_until(lambda: acme(lb)["state"] == "waiting")
            roots = ca.roots()
            lb.wait_until(lambda: loaded(lb) == 2)
            first = fetched(lb, roots)
            assert fetched(lb, roots, "b.example") == first
            load = Load(lb, roots)
            lb.wait_until(lambda: len(set(load.serials)) > 1)
            # A domain that a reload brings is ordered at once; what the authority refuses is said with its reason.
            lb.write_config(config(ca, plain, "blocked.example"))
            load.end()
            assert load.failures == []
            assert len(load.serials) > 20
            renewed = shown(lb)
            assert lb.cli("reload", "--config-only").returncode == 0
            lb.wait_until(lambda: acme(lb)["state"] == "failed")
            assert "the authority refuses: rejectedIdentifier: " in str(acme(lb)["why"])
            assert "rejectedIdentifier" in lb.cli("status").stdout
            # The domains of before have their certificate still: it is not ordered anew.
            lb.write_config(config(ca, plain, "a.example", "b.example"))
            assert lb.cli("reload", "--config-only").returncode == 0
            assert shown(lb) == renewed
        # A restart uses the file that is there, whether or not the authority can be asked.
        lb.stop()
        lb.start({})
        lb.wait_ready()
        assert shown(lb) == renewed
        (child,) = ordering(lb)
        child.kill()
        lb.wait_log("the process that orders certificates has ended: another is started in 1s")
        lb.wait_until(lambda: ordering(lb) and child not in ordering(lb))
        children = ordering(lb)
        lb.signal(signal.SIGKILL)
        _, alive = psutil.wait_procs(children, 10)
        assert alive == [], "it ends with lbproxy"
        state = Path(lb.state)
        assert all(file.stat().st_mode & 0o077 == 0 for file in state.rglob("*"))
        assert "PRIVATE KEY" not in lb.log()


def test_without_the_extra_it_is_said_how_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "lb.toml").write_text(
        '[[listener]]\naddress = "127.0.0.1:1"\ntls = { acme = { domains = ["a.example"] } }\n'
        '[pool.web]\ntargets = ["127.0.0.1:2"]\n'
    )
    hide = "import sys, importlib.util as u; f = u.find_spec; "
    hide += "u.find_spec = lambda name, *more: None if name in ('acme', 'josepy') else f(name, *more); "
    command = [sys.executable, "-c", hide + "from lbproxy.cli.main import main; main()", "-c", "lb.toml"]
    for verb in ("check", "serve"):
        done = subprocess.run([*command, verb], cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 78
        said = "lb.toml:3:9: error: listener.tls.acme: needs the packages acme and josepy: pip install 'lbproxy[acme]'"
        assert said in done.stdout + done.stderr
