"""What a scanner would look at on TLS listeners of a real lbproxy: versions, ciphers and their order, renegotiation,
compression, downgrades; and client certificates, seen from outside and from the backend."""

import re
import subprocess
from collections.abc import Iterator

import pytest
from support.certificates import Pair, authority, certificate
from support.serve import Serving, serving

pytestmark = pytest.mark.peer("openssl", "curl")

CONFIG = """
[proxy]
workers = 1
[[listener]]
name = "secure"
address = "127.0.0.1:$port"
tls = { certs = [{ %(ec)s }, { %(rsa)s }] }
hsts = "180d"
[[listener]]
name = "strict"
address = "127.0.0.1:$port2"
tls = { %(ec)s, min_version = "1.3", client_ca = "%(ca)s", client_auth = "require" }
[[listener]]
name = "asking"
address = "127.0.0.1:$port3"
tls = { %(ec)s, client_ca = "%(ca)s", client_auth = "request" }
[[listener]]
name = "plain"
address = "127.0.0.1:$port5"
redirect = "https"
[admin]
address = "127.0.0.1:$port4"
[pool.web]
command = "$brittle"
health = { path = "/healthz", interval = "500ms" }
"""
MODERN = ["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"]
# Without forward secrecy, without encryption, without authentication, broken, or CBC.
WEAK = [
    *("AES128-GCM-SHA256", "AES256-SHA256", "AES128-SHA", "CAMELLIA128-SHA", "ECDHE-ECDSA-AES128-SHA"),
    *("ECDHE-ECDSA-AES256-SHA384", "ECDHE-RSA-AES128-SHA256", "DHE-RSA-AES128-GCM-SHA256", "NULL", "aNULL", "PSK"),
    *("ECDHE-ECDSA-AES128-CCM8", "ARIA128-GCM-SHA256"),
]


@pytest.fixture(scope="module")
def lb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("scan")
    ca = authority(folder)
    ec, rsa = certificate(folder, "a.example", by=ca), certificate(folder, "b.example", by=ca, key="rsa")
    with serving(CONFIG % {"ec": ec.tls, "rsa": rsa.tls, "ca": ca.cert}, folder) as running:
        yield running


def s_client(port: int, *options: str, said: str = "") -> str:
    """What openssl says of a connection. `said`: goes in as if it were typed; the connection ends behind it."""
    words = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-servername", "a.example", *options]
    done = subprocess.run(words, input=said, capture_output=True, encoding="latin-1", timeout=15, check=False)
    return done.stdout + done.stderr


def chosen(said: str) -> str | None:
    """The cipher; None: there is no connection."""
    found = re.search(r"Cipher is (\S+)", said)
    return None if found is None or found[1] == "(NONE)" else found[1]


def test_versions_older_than_1_2_are_refused_and_1_2_where_1_3_is_asked(lb: Serving) -> None:
    for version, is_served in (("-tls1", False), ("-tls1_1", False), ("-tls1_2", True), ("-tls1_3", True)):
        said = s_client(lb.port, version, "-cipher", "ALL:@SECLEVEL=0")
        assert (chosen(said) is not None) is is_served, (version, said)
    assert chosen(s_client(lb.ports["port2"], "-tls1_2")) is None
    assert chosen(s_client(lb.ports["port2"], "-tls1_3")) == "TLS_AES_256_GCM_SHA384"


def test_only_modern_ciphers_are_spoken_and_the_order_is_the_servers(lb: Serving) -> None:
    for cipher in WEAK:
        assert chosen(s_client(lb.port, "-tls1_2", "-cipher", f"{cipher}:@SECLEVEL=0")) is None, cipher
    for cipher in MODERN:
        assert chosen(s_client(lb.port, "-tls1_2", "-cipher", cipher)) == cipher
    assert chosen(s_client(lb.port, "-tls1_2", "-cipher", ":".join(reversed(MODERN)))) == MODERN[0]
    by_rsa = s_client(lb.port, "-tls1_2", "-servername", "b.example", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256")
    assert chosen(by_rsa) == "ECDHE-RSA-AES128-GCM-SHA256"


def test_nothing_is_compressed_renegotiated_or_stapled_and_a_downgrade_is_noticed(lb: Serving) -> None:
    said = s_client(lb.port, "-tls1_2", "-comp", "-status", "-legacy_renegotiation")
    assert "Compression: NONE" in said
    assert "Secure Renegotiation IS supported" in said
    assert "OCSP response: no response sent" in said
    assert "no renegotiation" in s_client(lb.port, "-tls1_2", said="R\n")
    assert "alert inappropriate fallback" in s_client(lb.port, "-tls1_2", "-fallback_scsv")


def test_alpn_chooses_http_2_or_http_1_1_and_nothing_else(lb: Serving) -> None:
    assert "ALPN protocol: h2" in s_client(lb.port, "-alpn", "http/1.1,h2")
    assert "ALPN protocol: http/1.1" in s_client(lb.port, "-alpn", "h3,http/1.1")
    assert "No ALPN negotiated" in s_client(lb.port)
    assert "alert no application protocol" in s_client(lb.port, "-alpn", "h3,spdy/3")


def curl(lb: Serving, port: str, *options: str) -> str:
    """The head as the backend got it, and the one of the answer; or what curl complains of."""
    folder, number = lb.config.parent, lb.ports[port]
    words = ["curl", "-sSi", "--max-time", "10", "--resolve", f"a.example:{number}:127.0.0.1"]
    words += ["--cacert", str(folder / "Test-CA.pem"), *options, f"https://a.example:{number}/head"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).replace("\r", "")


def shown(pair: Pair) -> tuple[str, ...]:
    return "--cert", str(pair.cert), "--key", str(pair.key)


def test_client_certificates_are_asked_for_and_told_to_the_backend(lb: Serving) -> None:
    folder = lb.config.parent
    ca = Pair(folder / "Test-CA.pem", folder / "Test-CA.key")
    anna = certificate(folder, by=ca, subject="/O=Example, Inc./CN=Anna", file="anna")
    stranger = certificate(folder, by=authority(folder / "other", "Other CA"), subject="/CN=root", file="stranger")
    forged = ("-H", "X-Client-Cert-Verified: 1", "-H", "X_Client_Cert_Subject: CN=root", "-H", "Client-Cert: :MII=:")
    for port in ("port2", "port3"):
        head = curl(lb, port, *shown(anna), *forged)
        assert "X-Client-Cert-Verified: 1\n" in head, head
        assert "X-Client-Cert-Subject: CN=Anna,O=Example%5C,%20Inc.\n" in head
        assert re.search(r"X-Client-Cert-Serial: [0-9A-F]+\n", head)
        assert "root" not in head
        assert "X-Forwarded-Proto: https\n" in head
        assert "HTTP/1.1 200" not in curl(lb, port, *shown(stranger))
    without = curl(lb, "port3", *forged)
    assert "X-Client-Cert-Verified: 0\n" in without
    assert "Subject" not in without
    assert "alert" in curl(lb, "port2")
    secure = curl(lb, "port", *forged)
    assert "HTTP/2 200" in secure
    assert "cert" not in secure.lower(), "this listener asks for none"


def test_browsers_are_sent_to_https_and_told_to_stay_there(lb: Serving) -> None:
    assert "strict-transport-security: max-age=15552000\n" in curl(lb, "port")
    assert "Strict-Transport-Security" not in curl(lb, "port3")
    asked = subprocess.run(
        ["curl", "-sSi", f"http://127.0.0.1:{lb.ports['port5']}/a?b"], capture_output=True, text=True, check=True
    )
    assert f"Location: https://127.0.0.1:{lb.port}/a?b\n" in asked.stdout.replace("\r", "")


def test_handshakes_are_counted_by_how_they_ended(lb: Serving) -> None:
    def counted() -> dict[tuple[str, str, str], float]:
        words = ["curl", "-sS", f"http://127.0.0.1:{lb.ports['port4']}/metrics"]
        found = re.findall(
            r'lbproxy_tls_handshakes_total\{listener="(\w+)",result="(\w+)",version="([^"]*)"\} ([0-9.]+)',
            subprocess.run(words, capture_output=True, text=True, check=True).stdout,
        )
        return {(listener, result, version): float(number) for listener, result, version, number in found}

    before = counted()
    assert ("secure", "ok", "TLSv1.3") in before
    s_client(lb.port, "-tls1_3")
    s_client(lb.port, "-tls1_2")
    s_client(lb.port, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0")
    for labels in (("secure", "ok", "TLSv1.3"), ("secure", "ok", "TLSv1.2"), ("secure", "failed", "")):
        lb.wait_until(lambda labels=labels: counted().get(labels, 0) > before.get(labels, 0))
