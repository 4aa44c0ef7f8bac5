"""What `check --effective` prints is a configuration with the same meaning, without the secrets."""

import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from lbproxy.config.effective import HIDDEN, effective
from lbproxy.config.load import load
from lbproxy.config.toml_text import toml_text
from lbproxy.settings import Settings

Load = Callable[[str], Settings]

SMALL = '[[listener]]\naddress = ":8080"\n[pool.web]\ncommand = "true {port}"\n'
EVERYTHING = """
[proxy]
name = "edge"
workers = 1
control = "lb.sock"
pid_file = "lb.pid"
ports = "30000-30100"
shutdown_timeout = "1500ms"

[[listener]]
name = "public"
address = "[::1]:8080"
trusted_proxies = ["10.0.0.0/8", "::1", "unix"]
forwarded = true
proxy_protocol = "accept"
limits = { header_bytes = "0", headers = 0, body_bytes = "1MB", connections = 7, connections_per_client = 0 }
timeouts = { header = "250ms" }

[[listener]]
address = "unix:a b.sock"
socket_mode = "0660"
socket_group = "0"
mode = "tcp"
pool = "fixed"

[[listener]]
address = ":8443"
pool = "web"
protocols = ["http/1.1"]
tls = { certs = [{ cert = "a.pem", key = "a.key" }, { cert = "b.pem", key = "b.key" }], min_version = "1.3" }

[[listener]]
address = ":8444"
pool = "web"
tls = { cert = "a.pem", key = "a.key", client_ca = "ca.pem" }

[[listener]]
address = ":8445"
pool = "web"
tls = { directory = "current" }

[[route]]
host = "API.example.com"
path = "/v1/"
pool = "web"

[pool.web]
command = ["sh", "-c", "exec app '{port}' \\"$X\\""]
directory = "current"
env = { "A.B" = "x\\ny", EMPTY = "" }
env_file = ".env"
size = 3
balance = "hash"
hash_key = "header:X-User"
buffer_request = "1MiB"
health = { path = "/h", expect = "200,204-299", headers = { X-Probe = "1" }, active = true, host = "a.example" }
reload = { max_surge = "50%", min_ready = "0s" }
drain = { websocket = "0s", transfer = "2h", close_code = 3001, close_reason = "\u00fc" }
restart = { backoff = { first = "100ms" }, give_up = { crashes = 2 }, stop_signal = "SIGQUIT", max_memory = "512MiB" }
timeouts = { keepalive = "250ms" }
limits = { connections = 3, queue = { size = 0 } }
retry = { attempts = 5 }

[pool.fixed]
targets = ["127.0.0.1:9000", "unix:app.sock"]
balance = "random_two"

[log]
access = "off"
access_path = "access.log"
backend_lines = 0
"""


def again(settings: Settings, loaded: Load) -> Settings:
    """The settings, from the text that they are written as."""
    return loaded(toml_text(effective(settings)))


def test_the_smallest_file_is_written_with_every_default_and_means_the_same(loaded: Load):
    settings = loaded(SMALL)
    assert again(settings, loaded) == settings
    document = effective(settings)
    assert document["pool"]["web"]["drain"]["websocket"] == "5s"
    assert document["pool"]["web"]["limits"]["queue"] == {"size": 1000, "timeout": "10s"}
    assert document["listener"][0]["limits"]["body_bytes"] == "0"
    assert document["log"]["level"] == "info"


def test_a_file_with_everything_means_the_same_wherever_it_stands(loaded: Load, tmp_path: Path):
    (tmp_path / "release").mkdir()
    (tmp_path / "current").symlink_to("release")
    (tmp_path / ".env").touch()
    settings = loaded(EVERYTHING)
    text = toml_text(effective(settings))
    below = tmp_path / "release"
    (below / "lb.toml").write_text(text)
    found = load(below / "lb.toml")
    # The second listener's default name is its address as written: now an absolute one.
    names = [listener.name for listener in settings.listeners]
    listeners = tuple(replace(one, name=name) for one, name in zip(found.listeners, names, strict=True))
    # Targets have no directory.
    pools = (found.pools[0], replace(found.pools[1], directory=settings.pools[1].directory))
    assert replace(found, path=settings.path, listeners=listeners, pools=pools) == settings


def test_secrets_are_hidden(loaded: Load):
    text = SMALL + """env = { DATABASE_URL = "postgres://me:hunter2@db/x", API_KEY = "hunter2", MODE = "prod" }"""
    shown = effective(loaded(text))["pool"]["web"]["env"]
    assert shown == {"DATABASE_URL": "postgres://me:hidden@db/x", "API_KEY": HIDDEN, "MODE": "prod"}


def test_a_password_in_a_command_is_hidden(loaded: Load):
    text = SMALL.replace("true", "true --db redis://:hunter2@db/0")
    assert "hunter2" not in toml_text(effective(loaded(text)))


def test_keys_that_the_settings_do_not_have_come_from_the_file_and_secrets_stay_hidden(loaded: Load):
    """Such as those of tables that are written in another way than they are kept."""
    given = tomllib.loads("""
        [admin]
        address = "127.0.0.1:9901"
        token = "hunter2"
        [events]
        webhook = { url = "https://hooks.example/hunter2", secret = "env:HOOK_SECRET" }
        [cluster]
        key = "file:cluster.key"
        """)
    shown = effective(loaded(SMALL), given)
    assert shown["admin"] == {"address": "127.0.0.1:9901", "token": HIDDEN}
    assert shown["events"] == {"webhook": {"url": "http://hidden.invalid/", "secret": "env:HOOK_SECRET"}}
    assert shown["cluster"] == {"key": "file:cluster.key"}
