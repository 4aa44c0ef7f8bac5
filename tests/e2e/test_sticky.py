"""Sticky sessions on a real lbproxy: over ten reloads, a restart of lbproxy, and with cookies that are not ours."""

import contextlib
import re
import signal
from pathlib import Path

import pytest
from support.serve import Answer, Serving, serving
from support.ws import upgrade_request

CONFIG = """
[proxy]
workers = 2

[[listener]]
address = "127.0.0.1:$port"

[pool.web]
command = "$longlived --port {port}"
size = 3
sticky = { max_age = "1h" }
[pool.web.health]
path = "/healthz"
[pool.web.reload]
min_ready = "0s"
"""
COOKIE = re.compile(r"lbproxy=([-_A-Za-z0-9]{22}); Path=/; Max-Age=3600; HttpOnly; SameSite=Lax")


def slot_of(answer: Answer) -> str:
    assert answer.status == 200, answer.body
    return str(answer.json()["slot"])


def token_of(line: str) -> str:
    found = COOKIE.fullmatch(line)
    assert found is not None, line
    return found[1]


def ask(lb: Serving, token: str) -> Answer:
    return lb.get("/whoami", {"Cookie": f"theme=dark; lbproxy={token}"})


def is_open(lb: Serving) -> bool:
    try:
        lb.connect().close()
    except OSError:
        return False
    return True


def shake(lb: Serving, *fields: str) -> bytes:
    """The head of the answer to a WebSocket handshake."""
    with contextlib.closing(lb.connect()) as sock:
        sock.sendall(upgrade_request("/ws", *fields))
        head = b""
        while b"\r\n\r\n" not in head:
            more = sock.recv(4096)
            assert more, head
            head += more
        return head


def assert_stay(lb: Serving, tokens: dict[str, str]) -> None:
    for slot, token in tokens.items():
        answer = ask(lb, token)
        assert (slot_of(answer), answer.headers["Set-Cookie"]) == (slot, None)


@pytest.mark.timeout(120)
def test_a_client_stays_on_its_slot_over_ten_reloads_and_a_restart(tmp_path: Path) -> None:
    with serving(CONFIG, tmp_path) as lb:
        tokens: dict[str, str] = {}
        while len(tokens) < 3:
            answer = lb.get("/whoami")
            tokens[slot_of(answer)] = token_of(answer.headers["Set-Cookie"])
        for token in ("x", "A" * 22, tokens["1"][:-1], f'"{tokens["1"]}"', f"{tokens['1']}; lbproxy={tokens['2']}"):
            answer = ask(lb, token)
            assert token_of(answer.headers["Set-Cookie"]) == tokens[slot_of(answer)]
        for slot, token in tokens.items():
            head = shake(lb, f"Cookie: lbproxy={token}")
            assert head.startswith(b"HTTP/1.1 101 ")
            assert b"set-cookie" not in head.lower(), slot
        assert b"\r\nSet-Cookie: lbproxy=" in shake(lb)
        for _ in range(10):
            assert lb.cli("reload").returncode == 0
            assert_stay(lb, tokens)
        assert lb.cli("drain", "web.2").returncode == 0
        moved = ask(lb, tokens["2"])
        assert token_of(moved.headers["Set-Cookie"]) == tokens[slot_of(moved)] != tokens["2"]
        assert lb.cli("undrain", "web.2").returncode == 0
        lb.wait_until(lambda: slot_of(ask(lb, tokens["2"])) == "2")  # each worker hears of it a moment later
        assert_stay(lb, tokens)
        assert lb.status()["pools"]["web"]["sticky"] == "lbproxy"
        [file] = Path(lb.state).rglob("sticky.key")
        assert file.stat().st_mode & 0o777 == 0o600
        secret = file.read_text().strip()
        assert (
            secret not in lb.log() + lb.api("GET", "/v1/status").body.decode() + lb.cli("check", "--effective").stdout
        )
        upgraded = lb.cli("upgrade")
        assert upgraded.returncode == 0, upgraded.stdout + upgraded.stderr
        assert_stay(lb, tokens)
        lb.signal(signal.SIGTERM)
        lb.start({})
        lb.wait_until(lambda: is_open(lb))
        assert_stay(lb, tokens)  # at once: a client waits for its slot, and not only for any backend
        lb.wait_ready()
