"""Every default equals CONTRACT.md 2; every key arrives."""

import os
import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from lbproxy.address import Address
from lbproxy.config.secret import withhold
from lbproxy.settings import (
    DrainSettings,
    HealthSettings,
    ListenerLimits,
    ListenerSettings,
    ListenerTimeouts,
    LogSettings,
    PassiveSettings,
    PoolLimits,
    PoolSettings,
    PoolTimeouts,
    ProxySettings,
    ReloadSettings,
    RestartSettings,
    RouteSettings,
    Secret,
    Settings,
    StickySettings,
)

CPUS = len(os.sched_getaffinity(0))
TEN_LINES = """\
[[listener]]
address = ":8080"

[pool.web]
command = "uvicorn app:app --port {port}"
size    = 4

[pool.web.health]
path = "/healthz"
"""


def test_ten_lines_are_enough(loaded: Callable[[str], Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/lb:/second")
    settings = loaded(TEN_LINES)
    name = os.path.basename(settings.proxy.control).removesuffix(".sock")
    assert settings == Settings(
        path="lb.toml",
        proxy=ProxySettings(
            name=re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname()),
            workers=CPUS,
            control=settings.proxy.control,
            pid_file=None,
            ports=(20_000, 29_999),
            shutdown_timeout_s=30,
            state_dir=f"/var/lib/lb/{name}",
        ),
        listeners=(
            ListenerSettings(
                name=":8080",
                address=Address(port=8080),
                mode="http",
                pool="web",
                trusted_proxies=(),
                limits=ListenerLimits(header_bytes=16_384, headers=100, body_bytes=0, connections=20_000),
                timeouts=ListenerTimeouts(header_s=10, idle_s=75, body_s=60),
            ),
        ),
        routes=(),
        pools=(
            PoolSettings(
                name="web",
                command=("uvicorn", "app:app", "--port", "{port}"),
                targets=(),
                directory=str(tmp_path),
                env=(),
                env_file=None,
                user=None,
                size=4,
                bind="tcp",
                balance="least_conn",
                hash_key=None,
                health=HealthSettings(
                    path="/healthz",
                    expect=((200, 399),),
                    start_timeout_s=60,
                    interval_s=5,
                    timeout_s=2,
                    rise=2,
                    fall=3,
                ),
                reload=ReloadSettings(max_surge=1, max_surge_is_percent=False, min_ready_s=1),
                drain=DrainSettings(
                    request_s=30,
                    transfer_s=900,
                    stream_s=30,
                    websocket_s=5,
                    tcp_s=30,
                    goodbye_s=5,
                    close_code=1001,
                    close_reason="going away",
                ),
                restart=RestartSettings(
                    backoff_first_s=1,
                    backoff_max_s=30,
                    give_up_crashes=5,
                    give_up_within_s=60,
                    stop_signal=15,
                    stop_timeout_s=10,
                ),
                timeouts=PoolTimeouts(connect_s=2, response_s=60, idle_s=60, keepalive_s=1),
                limits=PoolLimits(connections=0, queue_size=1000, queue_timeout_s=10),
                retry_attempts=2,
            ),
        ),
        log=LogSettings(level="info", format="auto", access="combined", access_path="-"),
    )
    assert re.fullmatch(r"/run/user/7/lbproxy/lb-[0-9a-f]{8}\.sock", settings.proxy.control)


# CONTRACT.md 2, "Everything", without what is not supported yet, and with other values than the defaults.
EVERYTHING = """\
[proxy]
name             = "edge-1"
workers          = 3
control          = "run/lb.sock"
pid_file         = "run/lb.pid"
ports            = "21000-21999"
shutdown_timeout = "31s"
state_dir        = "state"
control_group    = "root"

[[listener]]
name             = "public"
address          = "0.0.0.0:8080"
mode             = "http"
pool             = "web"
proxy_protocol   = "off"
trusted_proxies  = ["127.0.0.0/8", "::1"]
limits.header_bytes = "8KiB"
limits.headers = 50
limits.body_bytes = "1MB"
limits.connections = 0
limits.connections_per_client = 9
timeouts         = { header = "11s", idle = "76s", body = "61s" }

[[listener]]
address = "unix:run/lb-public.sock"
trusted_proxies = ["unix"]
socket_mode = "0660"
socket_group = "root"

[[route]]
host = "API.example.com"
path = "/v1/"
pool = "legacy"

[[route]]
pool = "web"

[pool.web]
command   = ["uvicorn", "app:app", "--uds", "{socket}"]
directory = "current"
env       = { SETTINGS = "prod", B = "" }
env_file  = ".env"
user      = "root"
size      = "auto"
bind      = "unix"
balance   = "hash"
hash_key  = "cookie:sid"

[pool.web.health]
path          = "/healthz"
expect        = "200,204"
start_timeout = "61s"
interval      = "6s"
timeout       = "3s"
rise          = 3
fall          = 4

[pool.web.reload]
max_surge  = "50%"
min_ready  = "2s"
on_failure = "rollback"

[pool.web.drain]
request    = "31s"
transfer   = "16m"
stream     = "32s"
websocket  = "0s"
tcp        = "33s"
goodbye    = "6s"
close_code   = 1012
close_reason = "back soon"

[pool.web.restart]
backoff      = { first = "2s", max = "31s" }
give_up      = { crashes = 6, within = "61s" }
stop_signal  = "INT"
stop_timeout = "11s"
max_memory   = "512MiB"

[pool.web.timeouts]
connect   = "3s"
response  = "61s"
idle      = "62s"
keepalive = "500ms"

[pool.web.limits]
connections = 10
queue       = { size = 1001, timeout = "11s" }

[pool.web.retry]
attempts = 3

[pool.legacy]
targets = ["127.0.0.1:9000", "unix:run/app.sock"]
balance = "hash"

[log]
level  = "debug"
format = "json"
access = "json"
access_path = "access.log"
audit_path = "audit.log"
"""


def test_everything_arrives(loaded: Callable[[str], Settings], tmp_path: Path):
    (tmp_path / "current").symlink_to(".")
    (tmp_path / ".env").touch()
    base = str(tmp_path)
    settings = loaded(EVERYTHING)
    assert settings.path == "lb.toml"
    assert settings.proxy == ProxySettings(
        *("edge-1", 3, f"{base}/run/lb.sock", f"{base}/run/lb.pid", (21000, 21999), 31),
        state_dir=f"{base}/state",
        control_group="root",
    )
    public, unix = settings.listeners
    assert public == ListenerSettings(
        name="public",
        address=Address("0.0.0.0", 8080),
        pool="web",
        trusted_proxies=("127.0.0.0/8", "::1/128"),
        limits=ListenerLimits(8192, 50, 1_000_000, 2**62, 9),
        timeouts=ListenerTimeouts(11, 76, 61),
    )
    assert unix == ListenerSettings(
        "unix:run/lb-public.sock",
        Address(path=f"{base}/run/lb-public.sock"),
        trusted_proxies=("unix",),
        socket_mode=0o660,
        socket_group="root",
    )
    assert settings.routes == (RouteSettings("legacy", "api.example.com", "/v1/"), RouteSettings("web", None, "/"))
    web, legacy = settings.pools
    assert web == settings.pool("web")
    assert web == PoolSettings(
        name="web",
        command=("uvicorn", "app:app", "--uds", "{socket}"),
        directory=f"{base}/current",
        env=(("SETTINGS", "prod"), ("B", "")),
        env_file=f"{base}/.env",
        user="root",
        size=CPUS,
        bind="unix",
        balance="hash",
        hash_key="cookie:sid",
        health=HealthSettings("/healthz", ((200, 200), (204, 204)), 61, 6, 3, 3, 4),
        reload=ReloadSettings(50, True, 2),
        drain=DrainSettings(31, 960, 32, 0, 33, 6, 1012, "back soon"),
        restart=RestartSettings(2, 31, 6, 61, 2, 11, 512 << 20),
        timeouts=PoolTimeouts(3, 61, 62, 0.5),
        limits=PoolLimits(10, 1001, 11),
        retry_attempts=3,
    )
    assert legacy.targets == (Address("127.0.0.1", 9000), Address(path=f"{base}/run/app.sock"))
    assert (legacy.command, legacy.size, legacy.hash_key) == (None, 2, "client_ip")
    assert settings.log == LogSettings("debug", "json", "json", f"{base}/access.log", f"{base}/audit.log")


def test_settings_are_plain_values_that_can_be_compared_and_hashed(loaded: Callable[[str], Settings]):
    assert loaded(TEN_LINES) == loaded(TEN_LINES)
    assert hash(loaded(TEN_LINES)) == hash(loaded(TEN_LINES))


def test_no_limit_on_a_head_is_a_limit_that_nobody_reaches(loaded: Callable[[str], Settings]):
    limits = (
        loaded(TEN_LINES.replace('":8080"', '":8080"\nlimits = { header_bytes = "0", headers = 0 }'))
        .listeners[0]
        .limits
    )
    assert limits.header_bytes == limits.headers == 2**62
    assert limits.body_bytes == 0


def test_affinity_and_ejection_arrive(loaded: Callable[[str], Settings], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("STICKY_KEY", "sesame")
    more = """slow_start = "30s"
sticky = { cookie = "sid", max_age = "1h", same_site = "none", key = "env:STICKY_KEY" }
[pool.web.health]
passive = { errors = 6, within = "11s", eject = "12s", at_most = "30%" }
"""
    text = '[[listener]]\naddress = ":80"\n[pool.web]\ntargets = ["127.0.0.1:9"]\n'
    settings = loaded(text + more)
    (web,) = settings.pools
    assert web.sticky == StickySettings("sid", 3600.0, "none")
    assert settings.sticky_keys == (("web", Secret("sesame", "STICKY_KEY")),)
    assert (web.slow_start_s, web.health.passive) == (30.0, PassiveSettings(6, 11.0, 12.0, 30))
    (plain,) = loaded(text + "sticky = {}\nhealth.passive = {}\n").pools
    assert (plain.sticky, plain.health.passive) == (StickySettings(), PassiveSettings())
    assert loaded(text).pools[0].sticky is None
    assert withhold(settings, os.environ) == {"STICKY_KEY": "sesame"}
