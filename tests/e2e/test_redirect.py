"""A listener that sends everything to https but ACME challenges, while no backend is ready, and over a reload."""

import subprocess
from pathlib import Path

import pytest
from support.serve import serving

CONFIG = """
[[listener]]
name = "plain"
address = "127.0.0.1:$port"
redirect = "https"
acme_challenges = "acme"
[pool.web]
targets = ["127.0.0.1:9"]
limits = { queue = { timeout = "100ms" } }
[pool.other]
targets = ["127.0.0.1:9"]
"""


@pytest.mark.peer("curl")
def test_everything_goes_to_https_but_challenges(tmp_path: Path) -> None:
    webroot = tmp_path / "acme" / ".well-known" / "acme-challenge"
    webroot.mkdir(parents=True)
    (webroot / "token").write_text("token.print")
    with serving(CONFIG, tmp_path, wait=False) as lb:
        lb.wait_log('"worker.started"')
        lb.wait_until(lambda: lb.status()["workers"][0]["state"] == "serving")
        answer = lb.get("/a?b=c")
        assert (answer.status, answer.headers["Location"]) == (308, "https://127.0.0.1/a?b=c")
        words = ["curl", "-sS", f"http://127.0.0.1:{lb.port}/.well-known/acme-challenge/token"]
        assert subprocess.run(words, capture_output=True, text=True).stdout == "token.print"
        assert lb.get("/.well-known/acme-challenge/gone").status == 404
        (webroot / "gone").symlink_to("/etc/passwd")
        assert lb.get("/.well-known/acme-challenge/gone").status == 404
        lb.config.write_text(lb.config.read_text().replace('redirect = "https"\n', 'pool = "web"\n'))
        assert lb.cli("reload", "--config-only").returncode == 0
        assert lb.get("/a").status == 503
        assert lb.get("/.well-known/acme-challenge/token").body == b"token.print"
