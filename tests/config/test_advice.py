import os
from pathlib import Path

import pytest

from lbproxy.config.advice import advise, rights
from lbproxy.config.load import load

HEALTH = '[pool.web.health]\npath = "/"\n'


@pytest.fixture(autouse=True)
def _a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands are called `a` and `node`."""
    for name in ("a", "node"):
        (tmp_path / name).touch(mode=0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


def advice(pool: str, tmp_path: Path, proxy: str = "") -> list[str]:
    file = tmp_path / "lb.toml"
    file.write_text(f'[proxy]\nworkers = 1\n{proxy}\n[[listener]]\naddress = ":80"\n[pool.web]\n{pool}\n{HEALTH}')
    return advise(load(file))


@pytest.mark.parametrize(
    "pool",
    [
        'command = "a {port}"',
        'command = "a --bind {host}:{port}"',
        """command = "sh -c 'a $PORT'" """,
        'command = ["sh", "-c", "a $PORT"]',
        'command = "a {socket}"\nbind = "unix"',
        'command = "a {fd}"\nbind = "fd"',
        'targets = ["127.0.0.1:9"]',
    ],
)
def test_a_command_that_is_told_where_to_listen_needs_no_advice(pool: str, tmp_path: Path) -> None:
    assert advice(pool, tmp_path) == []


@pytest.mark.parametrize(
    ("pool", "names"),
    [
        ('command = "a --port 8000"', "{port}: the program has to read $PORT"),
        ('command = "a"\nbind = "unix"', "{socket}: the program has to read $LBPROXY_SOCKET"),
        ('command = "a"\nbind = "fd"', "{fd}: the program has to read LISTEN_FDS"),
    ],
)
def test_a_command_that_is_not_told_where_to_listen_is_mentioned(pool: str, names: str, tmp_path: Path) -> None:
    (line,) = advice(pool, tmp_path)
    assert line.startswith(f"pool.web.command: names no {names}")


def test_a_script_that_reads_the_port_from_its_environment_needs_no_advice(tmp_path: Path) -> None:
    (tmp_path / "server.js").write_text("require('http').createServer().listen(process.env.PORT)")
    assert advice('command = "node server.js"', tmp_path) == []
    (tmp_path / "server.js").write_text("require('http').createServer().listen(3000)")
    assert len(advice('command = "node server.js"', tmp_path)) == 1


def test_a_command_that_does_not_exist_is_mentioned(tmp_path: Path) -> None:
    assert advice('command = "noode {port}"', tmp_path) == [
        "pool.web.command: there is no program 'noode' in PATH (did you mean 'node'?)"
    ]


def test_more_workers_than_cpus_are_mentioned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("lbproxy.config.advice.usable_cpus", lambda: 1)
    file = tmp_path / "lb.toml"
    file.write_text('[proxy]\nworkers = 3\n[[listener]]\naddress = ":80"\n[pool.web]\ntargets = ["127.0.0.1:9"]\n')
    assert advise(load(file)) == ["proxy.workers: 3 workers share 1 CPU"]


def test_targets_that_are_not_verified_are_mentioned(tmp_path: Path) -> None:
    assert advice('targets = ["https://a.internal"]', tmp_path) == []
    (line,) = advice('targets = ["https://a.internal"]\ntls.verify = false', tmp_path)
    assert line.startswith("pool.web.tls.verify: false: anybody on the way")


def test_routes_that_a_tcp_listener_cannot_follow_are_mentioned(tmp_path: Path) -> None:
    file = tmp_path / "lb.toml"
    routes = "".join(f'[[route]]\npool = "web"\n{keys}\n' for keys in ('host = "a.b"', 'path = "/v1/"'))
    tcp = '[proxy]\nworkers = 1\n[[listener]]\naddress = ":443"\nmode = "tcp"\n[pool.web]\ntargets = ["127.0.0.1:9"]\n'
    file.write_text(tcp + routes)
    assert advise(load(file)) == ["[[route]] 2: tcp listeners see host names only (SNI), so it takes nothing"]
    file.write_text(tcp + routes + '[[listener]]\naddress = ":80"\n')
    assert advise(load(file)) == []


def test_a_key_of_cookies_that_can_be_guessed_is_mentioned(tmp_path: Path) -> None:
    assert advice('command = "a {port}"\nsticky = { key = "0123456789abcdef" }', tmp_path) == []
    assert advice('command = "a {port}"\nsticky = { key = "short" }', tmp_path) == [
        "pool.web.sticky.key: has 5 bytes; whoever guesses it can choose a backend"
    ]


@pytest.mark.parametrize(
    ("route", "cookie", "is_said"),
    [
        ('path = "/b/"', "lbproxy", True),
        ('host = "b.example"\npath = "/b/"', "lbproxy", True),
        ('path = "/b/"', "other", False),
        ('host = "b.example"', "lbproxy", False),
        ('path = "/"', "lbproxy", False),
    ],
)
def test_pools_that_overwrite_each_others_cookie_are_mentioned(
    route: str, cookie: str, is_said: bool, tmp_path: Path
) -> None:
    file = tmp_path / "lb.toml"
    file.write_text(
        '[proxy]\nworkers = 1\n[[listener]]\naddress = ":80"\npool = "web"\n'
        f'[[route]]\npool = "b"\n{route}\n[pool.web]\ntargets = ["127.0.0.1:9"]\nsticky = {{}}\n'
        f'[pool.b]\ntargets = ["127.0.0.1:8"]\nsticky = {{ cookie = "{cookie}" }}\n'
    )
    said = "pool.web.sticky.cookie: 'lbproxy' is that of pool b, too, on the same host: each of them overwrites the "
    assert advise(load(file)) == ([f"{said}other's (give it a name of its own)"] if is_said else [])


def test_ejection_that_ejects_nobody_is_mentioned(tmp_path: Path) -> None:
    file = tmp_path / "lb.toml"
    text = '[proxy]\nworkers = 1\n[[listener]]\naddress = ":80"\n[pool.web]\ntargets = ["127.0.0.1:9", "127.0.0.1:8"]\n'
    for at_most, said in (("50%", []), ("49%", ["49% of 2 backends is none: nothing is ejected"])):
        file.write_text(f'{text}health.passive.at_most = "{at_most}"\n')
        assert advise(load(file)) == [f"pool.web.health.passive: {one}" for one in said]


def test_workers_that_would_run_as_root_are_mentioned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = 'command = "a {port}"'
    assert advice(pool, tmp_path) == []
    settings = load(tmp_path / "lb.toml")
    assert list(rights(settings)) == []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    (line,) = rights(settings)
    assert line.startswith("proxy.user: workers, which read what clients send, run as root")
    advice(pool, tmp_path, 'user = "0:0"')
    assert list(rights(load(tmp_path / "lb.toml"))) == []
