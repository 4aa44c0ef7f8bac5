"""How a host is read, and which of several routes fits best; more in test_router.py."""

from dataclasses import replace

from lbproxy.address import Address
from lbproxy.settings import ListenerSettings, RouteSettings, TlsSettings
from lbproxy.worker.leases.routes import answers_itself, best_route, host_name, may_answer_itself, route_by_name


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


def test_a_challenge_of_ours_is_answered_where_there_is_no_tls() -> None:
    plain = ListenerSettings("plain", Address("127.0.0.1", 80))
    secure, tcp = replace(plain, tls=TlsSettings()), replace(plain, mode="tcp")
    ours, challenge = {b"token": b"answer"}, b"/.well-known/acme-challenge/token"
    assert answers_itself(plain, challenge, ours)
    assert answers_itself(plain, challenge + b"?x", ours)
    assert not answers_itself(plain, challenge, {})
    assert not answers_itself(plain, challenge + b"s", ours)
    assert not answers_itself(secure, challenge, ours)
    assert not answers_itself(plain, b"/", ours)
    assert [may_answer_itself(one, ours) for one in (plain, secure, tcp)] == [True, False, False]
    assert not may_answer_itself(plain, {})
