"""What `lbproxy explain` says is true: every example is accepted, every default is the one of the settings."""

import tomllib

import pytest
from support.each import each

from lbproxy.config import reference, units, validate
from lbproxy.config.reference import Entry, defaults, entries
from lbproxy.config.schema import Document
from lbproxy.settings import DrainSettings

KEYS = [entry for entry in entries() if not entry.is_table]


@pytest.mark.parametrize("entry", KEYS, ids=Entry.name_for)
def test_every_key_has_an_example_that_is_accepted_where_it_says(entry: Entry, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ADMIN_TOKEN", "0123456789abcdef")
    address = 'address = ":1"'
    for name, value in {"HOOK_URL": "http://127.0.0.1/", "HOOK_SECRET": "sesame", "STICKY_KEY": "k"}.items():
        monkeypatch.setenv(name, value)
    needed = {
        "[[listener]]": address,
        "[admin]": address,
        "[[route]]": 'pool = "web"',
        "[events.webhook]": 'url = "http://h"',
        "[listener.tls.acme]": 'domains = ["a.b"]',
        "[admin.tls.acme]": 'domains = ["a.b"]',
        "[events.redis]": 'url = "redis://h"',
    }.get(entry.header_for("web"), "")
    if needed.partition(" ")[0] == entry.path[-1]:
        needed = ""
    behind = "[[listener]]\naddress = ':1'\n" if entry.path[0] == "listener" and len(entry.path) > 2 else ""
    behind = "[admin]\naddress = ':1'\n" if entry.path[0] == "admin" and len(entry.path) > 2 else behind
    text = f"{behind}{entry.header_for('web')}\n{needed}\n{entry.written}\n"
    assert isinstance(validate.read(tomllib.loads(text)), Document), text


@each(KEYS, name=Entry.name_for)
def test_every_key_has_a_default_or_says_why_not(entry: Entry):
    assert entry.default is not None or entry.unset
    assert entry.default_text != "none" or entry.unset == "none"
    assert entry.about
    assert entry.applies
    assert entry.kind


def test_the_defaults_are_those_of_the_settings():
    assert units.duration(defaults()["pool"]["NAME"]["drain"]["websocket"]) == DrainSettings().websocket_s
    [entry] = reference.find("pool.NAME.drain.websocket")
    assert entry.default == "5s"


@pytest.mark.parametrize(
    ("key", "names"),
    [
        ("pool.web.drain.websocket", ["pool.NAME.drain.websocket"]),
        ("pool.NAME.drain.websocket", ["pool.NAME.drain.websocket"]),
        ("pool.*.drain", ["pool.NAME.drain"]),
        ("drain.websocket", ["pool.NAME.drain.websocket"]),
        ("websocket", ["pool.NAME.drain.websocket"]),
        ("[pool.web.drain]", ["pool.NAME.drain"]),
        ("[[listener]]", ["listener"]),
        ("listener.0.address", ["listener.address"]),
        ("pool", ["pool.NAME"]),
        ("limits", ["listener.limits", "pool.NAME.limits"]),
        ("pool.health.health", ["pool.NAME.health"]),
        ("zzz", []),
        ("", []),
        (".", []),
        ("pool.web.env.PATH", []),
    ],
)
def test_a_key_is_found_by_its_name_or_the_end_of_it(key: str, names: list[str]):
    assert [entry.name_for() for entry in reference.find(key)] == names


def test_the_name_of_the_pool_is_kept():
    assert reference.pool_in("pool.shop.drain") == "shop"
    assert reference.pool_in("drain") == reference.pool_in(None) == "NAME"
    assert reference.find("pool.shop.drain.tcp")[0].header_for("shop") == "[pool.shop.drain]"


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("pool.shop.drian.websocket", "pool.shop.drain.websocket"),
        ("proxy.wokers", "proxy.workers"),
        ("keep_alive", "pool.NAME.timeouts.keepalive"),
    ],
)
def test_a_misspelt_key_has_a_suggestion(key: str, name: str):
    assert name in reference.nearest_names(key)


def test_a_key_of_nonsense_has_none():
    assert reference.nearest_names("zzz") == []
    assert reference.nearest_names("...") == []


def test_what_is_refused_as_not_supported_is_known(monkeypatch: pytest.MonkeyPatch):
    from lbproxy.config.unsupported import NotYet

    refused = (NotYet(("listener", "*", "moon")), NotYet(("pool", "*", "moon")), NotYet(("log", "level"), only=("x",)))
    monkeypatch.setattr(reference, "NOT_YET", refused)
    for key in ("listener.moon", "moon", "pool.web.moon", "pool.web.moon.phase"):
        assert reference.not_supported(key)
    for key in ("log.level", "zzz", "", "pool"):
        assert not reference.not_supported(key)
