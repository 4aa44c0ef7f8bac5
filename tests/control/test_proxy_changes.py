"""Listeners, routes and settings: what comes, changes and goes."""

from dataclasses import replace

from control.fakes import pool_settings, settings_of
from lbproxy.address import Address
from lbproxy.control.proxy_changes import listener_changes, route_changes, setting_changes
from lbproxy.model import ListenerView
from lbproxy.settings import (
    AdminSettings,
    EventsSettings,
    ListenerLimits,
    ListenerSettings,
    RouteSettings,
    Secret,
    WebhookSettings,
)

OLD = settings_of(pool_settings())


def listener(port, name="a", **more):
    return ListenerSettings(name, Address("", port), **more)


def test_a_listener_is_known_by_its_address():
    old = [ListenerView(key, key, listener(port)) for key, port in ((1, 80), (2, 81), (3, 82))]
    new = [listener(80), listener(81, "b", limits=ListenerLimits(headers=5, header_bytes=1)), listener(83, pool="web")]
    found = listener_changes(old, new, why_not=lambda address: f"no {address}", connections=lambda view: view.key * 10)
    assert [(one["address"], one["problem"]) for one in found["added"]] == [(":83", "no :83")]
    assert [(one["address"], one["keys"]) for one in found["changed"]] == [
        (":81", ["name", "limits.header_bytes", "limits.headers"])
    ]
    assert found["gone"] == [{"name": "a", "address": ":82", "mode": "http", "pool": None, "connections": 30}]


def test_a_route_is_known_by_its_host_and_path_and_the_first_one_counts():
    old = (RouteSettings("web", path="/a"), RouteSettings("api", path="/a"), RouteSettings("web", "h"))
    new = (RouteSettings("api", path="/a"), RouteSettings("web", path="/b"))
    assert route_changes(old, new) == {
        "added": [{"host": None, "path": "/b", "pool": "web"}],
        "changed": [{"host": None, "path": "/a", "pool": "api", "from_pool": "web"}],
        "gone": [{"host": "h", "path": "/", "pool": "web"}],
    }
    assert not any(route_changes(old, old).values())


def test_settings_are_named_and_never_shown():
    new = replace(
        OLD,
        proxy=replace(OLD.proxy, name="other", workers=1, pid_file="/run/lb.pid"),
        log=replace(OLD.log, level="debug", format="json"),
        admin=AdminSettings(Address("127.0.0.1", 1), token=Secret("hush")),
        events=EventsSettings(WebhookSettings(Secret("http://hush"))),
    )
    assert setting_changes(OLD, new, worker_count=2) == {
        "live": ["proxy.name", "log.level", "admin", "events.webhook"],
        "next_start": ["proxy.pid_file", "log.format", "proxy.workers"],
    }
    other = replace(new, admin=AdminSettings(Address("127.0.0.1", 1), token=Secret("sh")))
    assert setting_changes(new, other, worker_count=1) == {"live": ["admin.token"], "next_start": []}
    assert setting_changes(new, new, worker_count=1) == {"live": [], "next_start": []}
    keyed = replace(new, sticky_keys=(("web", Secret("hush")),))
    assert setting_changes(new, keyed, worker_count=1) == {"live": ["pool.web.sticky.key"], "next_start": []}
