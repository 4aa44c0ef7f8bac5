from typing import Any

import pytest
from support.status_sample import BACKEND

from lbproxy.cli.options import Options
from lbproxy.cli.status_text import aligned, flowing, status_lines, up, what_is_wrong

PLAIN = Options(color="never")


def pool_of(*states: str, **more: Any) -> dict[str, Any]:
    backends = [{**BACKEND, "id": f"web.{slot}", "state": state} for slot, state in enumerate(states, 1)]
    ready = states.count("ready")
    return {"generation": 7, "size": len(states), "ready": ready, "requests_total": 1, "backends": backends, **more}


def document(pool: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "name": "edge-1",
        "pid": 4102,
        "uptime_s": 12.5,
        "config": {"path": "/etc/lbproxy/lb.toml", "loaded_at": "2026-01-01T12:00:00Z"},
        "workers": [{"id": 1, "pid": 4103, "state": "serving", "connections": 1}],
        "listeners": [{"name": ":8080", "address": ":8080", "mode": "http", "pool": "web"}],
        "pools": {"web": pool},
        **more,
    }


def test_one_is_no_plural_and_a_listener_without_a_name_is_shown_once() -> None:
    lines = status_lines(document(pool_of("ready")), PLAIN)
    assert lines[1:3] == ["listener :8080  http -> web", "worker 1  pid 4103  serving  1 connection"]
    assert lines[4] == "pool web  generation 7  1/1 ready  1 request"


def test_routes_and_the_release_directory_are_shown() -> None:
    pool = pool_of("ready", "ready")
    routes = [{"host": "a.example", "path": "/v1/", "pool": "web"}, {"host": None, "path": "/x", "pool": "web"}]
    for backend in pool["backends"]:
        backend["directory"] = "/srv/releases/42"
    lines = status_lines(document(pool, routes=routes), PLAIN)
    assert "route a.example/v1/ -> web" in lines
    assert "route /x -> web" in lines
    assert "  directory /srv/releases/42" in lines
    pool["backends"][1] |= {"directory": "/srv/releases/41", "generation": 6}
    lines = status_lines(document(pool), PLAIN)
    assert "  generation 6 in /srv/releases/41" in lines
    assert "  generation 7 in /srv/releases/42" in lines


def test_an_address_that_was_found_for_a_name_is_shown_with_it() -> None:
    pool = pool_of("ready")
    pool["backends"][0] |= {"address": "https://10.0.0.7:443", "target": "https://app.internal:443"}
    assert "https://10.0.0.7:443 (app.internal)" in status_lines(document(pool), PLAIN)[-1]


def test_a_backend_that_does_not_serve_says_why_below_its_row() -> None:
    pool = pool_of("ready", "failed")
    pool["backends"][1]["why"] = "exit code 3\x1b[2J; 5 crashes within 60s: not started again"
    lines = status_lines(document(pool), PLAIN)
    assert lines[-1] == "    exit code 3\\x1b[2J; 5 crashes within 60s: not started again"
    assert max(map(len, status_lines(document(pool), PLAIN, 40)[-3:])) <= 40


@pytest.mark.parametrize(
    ("states", "more", "wrong"),
    [
        (["ready", "ready"], {}, ""),
        (["ready", "backoff"], {}, "degraded: 1 backoff"),
        (["ready", "failed", "starting"], {}, "degraded: 1 failed, 1 starting"),
        (["unhealthy", "unhealthy"], {}, "degraded: 2 unhealthy"),
        (["failed", "failed", "starting"], {}, "nothing serves: 2 failed, 1 starting"),
        (["ready", "starting"], {"reloading": True}, ""),
        (["draining", "starting"], {"reloading": True}, "nothing serves: 1 starting"),
        ([], {"size": 1}, "nothing serves"),
    ],
)
def test_a_pool_is_degraded_only_while_some_of_it_serves(states: list[str], more: dict[str, Any], wrong: str) -> None:
    assert what_is_wrong(pool_of(*states, **more)) == wrong


def test_columns_without_room_are_left_out_and_no_line_is_wider_than_the_terminal() -> None:
    pool = pool_of("ready", "draining", "backoff")
    for backend in pool["backends"]:
        backend |= {"directory": "/srv/www/applications/a-long-name/releases/2026-01-01T12-00-00", "drain_left_s": 7.2}
    pool["backends"][2]["why"] = "exit code 3 before it was ready (a backend has to stay: keep it in the foreground)"
    for width in (60, 80, 120):
        lines = status_lines(document(pool), PLAIN, width)
        assert max(map(len, lines)) <= width, "\n".join(lines)
        assert [line.split()[:2] for line in lines if line.startswith("  web.")] == [
            ["web.1@7", "ready"],
            ["web.2@7", "draining"],
            ["web.3@7", "backoff"],
        ]
    assert "…" in "\n".join(status_lines(document(pool), PLAIN, 60)), "of the directory"
    (head,) = [line for line in status_lines(document(pool), PLAIN, 60) if "BACKEND" in line]
    assert head.split() == ["BACKEND", "STATE", "IN", "FLIGHT", "REQUESTS"]


def test_columns_are_aligned_and_have_no_tails() -> None:
    assert aligned([("A", "LONG", "B"), ("word", "x", "")]) == ["A     LONG  B", "word  x"]


def test_a_part_without_room_begins_the_next_line() -> None:
    assert flowing(["one", "two", "three"], 10) == ["one  two", "    three"]


@pytest.mark.parametrize(
    ("duration_s", "text"), [(9.14, "9.1s"), (252, "4m12s"), (11_100, "3h05m"), (187_200, "2d04h"), (60, "1m00s")]
)
def test_a_duration_is_short(duration_s: float, text: str) -> None:
    assert up(duration_s) == text


def test_the_certificates_of_a_listener_are_shown_and_those_about_to_expire_are_marked() -> None:
    names = [f"{letter}.example" for letter in "abcde"]
    certificates = [
        {"names": names[:count], "not_after": "2027-01-31T12:00:00.000Z", "days_left": days}
        for count, days in ((1, 63), (5, 20), (2, 1), (2, -1))
    ]
    listener = {"name": "tls", "address": ":443", "mode": "http", "pool": "web", "certificates": certificates}
    lines = status_lines(document(pool_of("ready"), listeners=[listener]), PLAIN)
    assert lines[2:6] == [
        "  certificate a.example  until 2027-01-31  63 days left",
        "  certificate a.example, b.example, c.example and 2 more  until 2027-01-31  20 days left",
        "  certificate a.example, b.example  until 2027-01-31  1 day left",
        "  certificate a.example, b.example  until 2027-01-31  expired",
    ]
    lines = status_lines(document(pool_of("ready"), listeners=[listener]), Options(color="always"))
    assert ["\x1b" in line for line in lines[2:6]] == [False, True, True, True]
