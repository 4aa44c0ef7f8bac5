"""Who may ask what on [admin]: every rule by itself, without sockets."""

import base64

import pytest

from lbproxy.address import Address
from lbproxy.control.admin_gate import (
    MOST_ADDRESSES,
    WrongTokens,
    check,
    given_token,
    is_our_host,
    is_same_origin,
)
from lbproxy.control.api_server import Declined, Question
from lbproxy.settings import AdminSettings, Secret

TOKEN = "0123456789abcdef"
OPEN = AdminSettings(Address("127.0.0.1", 9901))
GUARDED = AdminSettings(Address("", 9901), hosts=("lb.internal",), token=Secret(TOKEN))
JSON = {"content-type": "application/json"}


class Clock:
    def __init__(self):
        self.time = 1000.0

    def __call__(self):
        return self.time


def verdict(admin, method="GET", path="/v1/status", *, host="localhost:9901", peer="10.0.0.1", wrong=None, **fields):
    """The status that the gate answers; 200 when it lets through."""
    fields = {name.replace("_", "-"): value for name, value in fields.items()}
    try:
        check(Question(method, path, {}, {}, fields, host, peer), admin, "edge-1", wrong or WrongTokens(Clock()))
    except Declined as exc:
        return exc.answer.status
    return 200


def bearer(token=TOKEN):
    return {"authorization": f"Bearer {token}"}


def basic(token=TOKEN, user="anybody"):
    return {"authorization": "Basic " + base64.b64encode(f"{user}:{token}".encode()).decode()}


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "10.1.2.3:9901",
        "[::1]",
        "[::1]:9901",
        "localhost",
        "LocalHost:1",
        "localhost.",
        "edge-1",
        "EDGE-1:80",
    ],
)
def test_our_names_and_every_ip_address_are_our_host(host):
    assert is_our_host(host, ["edge-1"])


@pytest.mark.parametrize(
    "host",
    [
        "evil.com",
        "evil.com:9901",
        "localhost.evil.com",
        "127.0.0.1.evil.com",
        "127.1",
        "0x7f.1",
        "",
        ":80",
        "edge-1.x",
    ],
)
def test_other_names_are_refused(host):
    assert not is_our_host(host, ["edge-1"])


def test_a_client_of_http_1_0_has_no_host():
    assert is_our_host(None, ())


def test_a_foreign_host_is_421_on_every_path_and_with_the_token():
    assert verdict(OPEN, host="evil.com") == 421
    assert verdict(OPEN, path="/livez", host="evil.com") == 421
    assert verdict(GUARDED, host="evil.com", **bearer()) == 421
    assert verdict(GUARDED, host="lb.internal", **bearer()) == 200


def test_without_a_token_everything_can_be_read_and_nothing_changed():
    assert verdict(OPEN) == 200
    assert verdict(OPEN, "HEAD") == 200
    assert verdict(OPEN, "POST", "/v1/reload", **JSON) == 403
    assert verdict(OPEN, "DELETE", "/v1/status") == 403


def test_with_a_token_only_open_paths_need_none():
    assert verdict(GUARDED, path="/livez") == 200
    assert verdict(GUARDED, "HEAD", "/readyz") == 200
    assert verdict(GUARDED, "POST", "/livez", **JSON) == 401
    for path in ("/v1/status", "/metrics", "/", "/livez/", "/LIVEZ", "//livez"):
        assert verdict(GUARDED, path=path) == 401, path


def test_a_token_comes_as_bearer_or_as_the_password_of_any_user():
    assert verdict(GUARDED, **bearer()) == 200
    assert verdict(GUARDED, authorization=f"bearer  {TOKEN} ") == 200
    assert verdict(GUARDED, **basic()) == 200
    assert verdict(GUARDED, **basic(user="")) == 200
    for wrong in ({}, {"authorization": TOKEN}, {"authorization": "Digest x"}):
        assert verdict(GUARDED, **wrong) == 401, wrong


@pytest.mark.parametrize("token", ["", TOKEN[:-1], TOKEN + "0", TOKEN.upper(), "é" * 16, f"{TOKEN}, Bearer {TOKEN}"])
def test_a_wrong_token_is_401(token):
    assert verdict(GUARDED, **bearer(token)) == 401
    assert verdict(GUARDED, **basic(token)) == 401


def test_a_password_may_hold_a_colon_and_broken_base64_is_a_wrong_token():
    assert given_token("Basic " + base64.b64encode(b"user:a:b").decode()) == b"a:b"
    assert given_token("Basic !!!") == b""
    assert given_token("Basic") == b""
    assert given_token("") is None


def test_ten_wrong_tokens_lock_an_address_for_a_minute_and_no_other():
    clock, locked = Clock(), []
    wrong = WrongTokens(clock, locked.append)
    for _ in range(10):
        clock.time += 1.0
        assert verdict(GUARDED, wrong=wrong, **bearer("x")) == 401
    assert verdict(GUARDED, wrong=wrong, **bearer("x")) == 429
    assert locked == ["10.0.0.1"]
    assert verdict(GUARDED, wrong=wrong, **bearer()) == 429, "else an attacker would learn the right one"
    assert verdict(GUARDED, path="/livez", wrong=wrong) == 200
    assert verdict(GUARDED, wrong=wrong, peer="10.0.0.2", **bearer()) == 200
    clock.time += 51.0
    assert verdict(GUARDED, wrong=wrong, **bearer("x")) == 401, "the first one is a minute old"
    assert verdict(GUARDED, wrong=wrong, **bearer()) == 429
    clock.time += 60.0
    assert verdict(GUARDED, wrong=wrong, **bearer()) == 200


def test_a_missing_token_is_not_a_wrong_one():
    wrong = WrongTokens(Clock())
    for _ in range(20):
        assert verdict(GUARDED, wrong=wrong) == 401
    assert verdict(GUARDED, wrong=wrong, **bearer()) == 200


def test_the_addresses_of_one_ipv6_network_are_one():
    wrong = WrongTokens(Clock())
    for number in range(10):
        verdict(GUARDED, wrong=wrong, peer=f"2001:db8::{number}", **bearer("x"))
    assert verdict(GUARDED, wrong=wrong, peer="2001:db8::ffff", **bearer()) == 429
    assert verdict(GUARDED, wrong=wrong, peer="2001:db8:0:1::", **bearer()) == 200


def test_wrong_tokens_from_everywhere_take_bounded_memory():
    wrong = WrongTokens(Clock())
    for number in range(MOST_ADDRESSES + 50):
        wrong.note(f"peer {number}")
    assert len(wrong._times) == MOST_ADDRESSES


def test_a_change_needs_json_and_our_own_origin():
    def change(**fields):
        return verdict(GUARDED, "POST", "/v1/reload", **bearer(), **fields)

    assert change(**JSON) == 200
    assert change(content_type="application/json; charset=utf-8") == 200
    assert change() == 415
    assert change(content_type="application/x-www-form-urlencoded") == 415
    assert change(content_type="text/plain; application/json") == 415
    assert change(**JSON, origin="http://localhost:9901") == 200
    for origin in ("null", "http://evil.com", "http://localhost:9902", "file://localhost:9901", ""):
        assert change(**JSON, origin=origin) == 403, origin


def test_an_origin_leaves_out_the_usual_port():
    assert is_same_origin("http://lb", "lb:80")
    assert is_same_origin("https://LB", "lb:443")
    assert is_same_origin("http://[::1]:9901", "[::1]:9901")
    assert not is_same_origin("http://lb", "lb:443")
