import os
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from lbproxy.config.advice import advise
from lbproxy.config.effective import HIDDEN, effective
from lbproxy.config.secret import Secrets, masked, withhold
from lbproxy.settings import Secret, Settings

Load = Callable[[str], Settings]
Report = Callable[[str], str]

TOKEN = "0123456789abcdef"
POOL = '[[listener]]\naddress = ":80"\n[pool.web]\ntargets = ["127.0.0.1:9"]\n'


def admin(*keys: str, address: str = "127.0.0.1:9901") -> str:
    return "\n".join([POOL, "[admin]", f'address = "{address}"', *keys, ""])


def test_a_secret_is_written_or_in_a_variable_or_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    secrets = Secrets(str(tmp_path), {"TOKEN": TOKEN})
    assert secrets.read(TOKEN, 16) == Secret(TOKEN)
    assert secrets.read("env:TOKEN", 16) == Secret(TOKEN, "TOKEN")
    assert secrets.read("file:token", 16) == Secret(TOKEN)


def test_a_secret_does_not_show_in_its_repr() -> None:
    assert TOKEN not in repr(Secret(TOKEN, "TOKEN"))


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (7, "expected a string"),
        ("short", "has 5 bytes, at least 16 are needed"),
        ("env:", "needs the name of a variable"),
        ("env:NOWHERE", "the variable NOWHERE is not set"),
        ("env:SHORT", "in env:SHORT has 3 bytes"),
        ("env:ODD", "visible ASCII"),
        ("file:nothing", "there is no file"),
        ("file:.", "there is no file"),
        ("file:long", "longer than 4096 bytes"),
        ("file:binary", "visible ASCII"),
    ],
)
def test_a_secret_that_cannot_be_read_is_refused_without_being_shown(tmp_path: Path, value: object, why: str) -> None:
    (tmp_path / "long").write_text("x" * 5000)
    (tmp_path / "binary").write_bytes(b"\xff\x00" * 16)
    secrets = Secrets(str(tmp_path), {"SHORT": "abc", "ODD": "two words are no token"})
    with pytest.raises(ValueError, match=why) as caught:
        secrets.read(value, 16)
    assert not any(secret in str(caught.value) for secret in ("'short'", "abc", "two words"))


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ('token = "abc"', 'token = "…"'),
        ("token='abc' # why", 'token="…" # why'),
        ('"token" = "abc"', '"token" = "…"'),
        ('token = "abc', 'token = "…"'),
        ('admin = { address = ":1", token = "abc" }', 'admin = { address = ":1", token = "…" }'),
        ('token = "env:NAME"', 'token = "env:NAME"'),
        ('token = "file:a/b"', 'token = "file:a/b"'),
        ('command = "abc"', 'command = "abc"'),
        ('sticky = { key = "abc" }', 'sticky = { key = "…" }'),
        ('key = "abc"', 'key = "…"'),
        ('key = "certs/a.pem"', 'key = "certs/a.pem"'),
        ('tls = { cert = "c", key = "k" }', 'tls = { cert = "c", key = "k" }'),
    ],
)
def test_a_line_is_shown_without_its_secret(line: str, shown: str) -> None:
    assert masked(line) == shown


def test_no_report_shows_a_token(report: Report) -> None:
    assert "s3cr3t" not in report(admin('token = "s3cr3t"'))
    assert "s3cr3t" not in report(admin('tokn = "s3cr3t s3cr3t s3cr3t"'))
    assert "s3cr3t" not in report(admin('token = "s3cr3t-s3cr3t-s3cr3t" x'))


def test_admin_has_its_defaults_and_values(loaded: Load) -> None:
    settings = loaded(admin()).admin
    assert settings is not None
    assert (settings.open, settings.hosts, settings.token) == (("/livez", "/readyz"), (), None)
    settings = loaded(admin(f'token = "{TOKEN}"', "open = []", 'hosts = ["LB.internal"]', address=":9901")).admin
    assert settings is not None
    assert (settings.open, settings.hosts, settings.token) == ((), ("lb.internal",), Secret(TOKEN))
    assert loaded(POOL).admin is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (admin(address="0.0.0.0:9901"), "admin.address: '0.0.0.0:9901' is beyond loopback: that needs admin.token"),
        (admin(address=":9901"), "that needs admin.token"),
        (admin(address="10.0.0.1:9901"), "that needs admin.token"),
        (admin(address=":80") + f'token = "{TOKEN}"', "admin.address: ':80' is the same address as ':80' (line 2)"),
        (admin('open = ["/x"]'), "admin.open: expected /, /livez"),
        (admin('hosts = ["http://x"]'), "admin.hosts: expected a host name"),
        (admin("tls = { acme = {} }"), "'domains' is missing in [admin.tls.acme]"),
        (admin("opn = []"), "unknown key 'opn' in [admin] (did you mean 'open'?)"),
        (POOL + "[admin]\n", "'address' is missing in [admin]"),
        (admin(address=f"unix:{'x' * 120}"), "at most 107 bytes"),
    ],
)
def test_a_mistake_in_admin_is_one_clear_line(report: Report, text: str, message: str) -> None:
    assert message in report(text)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1", "unix:admin.sock"])
def test_a_local_address_needs_no_token(loaded: Load, address: str) -> None:
    assert not any(line.startswith("admin") for line in advise(loaded(admin(address=address))))


def test_a_token_that_crosses_the_network_in_the_clear_is_mentioned(loaded: Load) -> None:
    lines = advise(loaded(admin(f'token = "{TOKEN}"', address=":9901")))
    assert "admin.address: :9901 is beyond loopback and without TLS: the token can be read on the way" in lines


def test_the_variable_of_a_secret_is_not_inherited(loaded: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADMIN_TOKEN", TOKEN)
    settings = loaded(admin('token = "env:ADMIN_TOKEN"'))
    assert withhold(settings, os.environ) == {"ADMIN_TOKEN": TOKEN}
    assert "ADMIN_TOKEN" not in os.environ
    assert withhold(settings, os.environ) == {}


def test_a_token_is_written_as_where_it_stands_and_never_as_it_is(
    loaded: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADMIN_TOKEN", TOKEN)
    for given, shown in ((TOKEN, HIDDEN), ("env:ADMIN_TOKEN", "env:ADMIN_TOKEN")):
        text = admin(f'token = "{given}"')
        written = effective(loaded(text), tomllib.loads(text))["admin"]
        assert written == {"address": "127.0.0.1:9901", "open": ["/livez", "/readyz"], "token": shown}


def test_urls_and_secrets_of_events_never_show_and_their_variables_are_taken_out_of_the_environment(
    loaded: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"HOOK": "http://127.0.0.1:1/SESAME", "KEY": "SESAME", "CACHE": "redis://SESAME/0"}.items():
        monkeypatch.setenv(name, value)
    sinks = 'webhook = { url = "env:HOOK", secret = "env:KEY", events = ["reload.*"] }\nredis = { url = "env:CACHE" }\n'
    settings = loaded(f"{POOL}[events]\n{sinks}")
    webhook, redis = settings.events.webhook, settings.events.redis
    assert webhook is not None
    assert redis is not None
    assert (webhook.url.value, webhook.events) == ("http://127.0.0.1:1/SESAME", ("reload.*",))
    assert (redis.url.value, redis.channel, redis.events) == ("redis://SESAME/0", "lbproxy", ("*",))
    assert "SESAME" not in repr(settings)
    environ = dict(os.environ)
    assert sorted(withhold(settings, environ)) == ["CACHE", "HOOK", "KEY"]
    assert not {"CACHE", "HOOK", "KEY"} & set(environ)


@pytest.mark.parametrize(
    ("sinks", "why"),
    [
        ('webhook = { url = "ftp://SESAME" }', "events.webhook.url: expected a URL that begins with http://"),
        ('webhook = { url = "http://SESAME:x/" }', "events.webhook.url: not a URL: "),
        ('webhook = { ulr = "http://SESAME/" }', "unknown key 'ulr' in [events.webhook] (did you mean 'url'?)"),
        ('webhook = "http://SESAME/"', "events.webhook: expected a table"),
        ('redis = { url = "mailto:SESAME" }', "events.redis.url: expected a URL that begins with redis://"),
        ('webhook = { url = "http://SESAME/", events = ["relaod.*"] }', "no event is called 'relaod.*'"),
        ('webhook = { events = ["reload.*"] }', "'url' is missing in [events.webhook]"),
    ],
)
def test_a_mistake_in_events_is_told_without_its_url(report: Report, sinks: str, why: str) -> None:
    text = report(f"{POOL}[events]\n{sinks}\n")
    assert why in text
    assert "SESAME" not in text


def test_redis_needs_its_extra(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lbproxy.config.machine_checks.find_spec", lambda name: None)
    text = report(f'{POOL}[events]\nredis = {{ url = "redis://127.0.0.1" }}\n')
    assert "events.redis: needs the package redis: pip install 'lbproxy[redis]'" in text
