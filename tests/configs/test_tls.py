"""tls.toml on other ports, with a directory of certificates as certbot makes it."""

import http.client
import ssl
from contextlib import closing
from pathlib import Path

import pytest
from support import over_tls
from support.certificates import certificate
from support.serve import serving

CONFIG = Path(__file__).parents[2] / "configs" / "tls.toml"


@pytest.fixture
def config(tmp_path: Path) -> str:
    live = tmp_path / "live" / "localhost"
    pair = certificate(tmp_path / "made", "localhost")
    live.mkdir(parents=True)
    (live / "fullchain.pem").symlink_to(pair.cert)
    (live / "privkey.pem").symlink_to(pair.key)
    (tmp_path / "acme").mkdir()
    (tmp_path / "acme" / "token").write_text("token.print")
    text = CONFIG.read_text().replace("#acme_challenges", "acme_challenges")
    for ours, theirs in (
        ('":80"', '"127.0.0.1:$port"'),
        ('":443"', '"127.0.0.1:$port2"'),
        ("/etc/letsencrypt/live", "live"),
        ("/var/www/acme", "acme"),
        ("python3 demo_app.py", f"$python {CONFIG.with_name('demo_app.py')}"),
    ):
        assert ours in text
        text = text.replace(ours, theirs)
    return text


@over_tls.plain_only
def test_the_front_door_redirects_secures_and_keeps_a_client_on_its_backend(config: str, tmp_path: Path) -> None:
    with serving(config, tmp_path) as lb:
        assert lb.cli("check").returncode == 0
        answer = lb.get("/a", {"Host": f"localhost:{lb.port}"})
        assert (answer.status, answer.headers["Location"]) == (308, f"https://localhost:{lb.ports['port2']}/a")
        assert lb.get("/.well-known/acme-challenge/token").body == b"token.print"
        trusting = ssl.create_default_context(cafile=str(tmp_path / "live" / "localhost" / "fullchain.pem"))
        with closing(http.client.HTTPSConnection("localhost", lb.ports["port2"], context=trusting)) as client:
            client.request("GET", "/healthz")
            secured = client.getresponse()
        assert (secured.status, secured.headers["Strict-Transport-Security"]) == (200, "max-age=15552000")
        assert "; Secure" in secured.headers["Set-Cookie"]
