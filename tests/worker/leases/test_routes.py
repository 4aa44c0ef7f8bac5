"""How a host is read, and which of several routes fits best; more in test_router.py."""

from lbproxy.settings import RouteSettings
from lbproxy.worker.leases.routes import best_route, host_name, route_by_name


def test_a_host_name_is_read_without_its_port() -> None:
    assert host_name(b"A.b:80") == "a.b"
    assert host_name(b"[2001:DB8::1]:80") == "[2001:db8::1]"
    assert host_name(b"") == ""


def test_a_host_beats_a_longer_path_and_a_path_ends_at_a_slash() -> None:
    long, host = RouteSettings("long", path="/v1/users/"), RouteSettings("host", host="a", path="/v1")
    assert best_route((long, host), b"a:80", b"/v1/users/7?x=/") is host
    assert best_route((long, host), b"b", b"/v1/users/7") is long
    assert best_route((long, host), b"a", b"/v1x") is None
    assert best_route((), b"a", b"/") is None


def test_a_name_alone_finds_a_route_that_asks_for_no_path() -> None:
    path, host, other = RouteSettings("p", "a", "/v1"), RouteSettings("h", "a"), RouteSettings("o")
    assert route_by_name((path, other, host), "a") is host
    assert route_by_name((path, other, host), "b") is None
