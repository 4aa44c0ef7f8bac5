"""The words of a plan."""

import pytest
from support.plan_sample import EVERYTHING, NOTHING, UNCHANGED

from lbproxy.cli.options import Options
from lbproxy.cli.plan_text import plan_lines

PLAIN = Options(color="never")


def test_nothing_is_said_first() -> None:
    assert plan_lines(NOTHING, PLAIN) == [
        "nothing would change",
        "pool web: unchanged, generation 7 with 2 backends",
    ]


def test_a_reload_of_an_unchanged_file_says_that_it_replaces_all_the_same() -> None:
    web = {**UNCHANGED, "action": "replaced", "generation": 8, "anyway": True, "replaced": ["web.1@7", "web.2@7"]}
    assert plan_lines({**NOTHING, "nothing": False, "pools": {"web": {**web, "kept": []}}}, PLAIN) == [
        "nothing has changed in the file",
        "pool web: every backend is replaced, generation 7 -> 8, 2 backends",
        "  a reload replaces every backend, changed or not; --config-only would keep these",
        "  replaced: web.1@7 web.2@7",
        "connections affected: none",
        "memory: 100.0MiB now, 100.0MiB at the peak; free: 4.0GiB in the host",
        "takes about 0.0s",
    ]


def test_everything_has_its_line() -> None:
    assert plan_lines(EVERYTHING, PLAIN) == [
        "now: another reload is running (r1, reload of web by command, since 2026-01-01T12:00:00.000Z); "
        "this is planned against what runs at the moment",
        "the reload would end at once: cannot listen on :81: address already in use; nothing would happen",
        "listeners",
        "  + public :81 (http -> web): cannot be bound",
        "  + public :84 (http -> web)",
        "  ~ :82 (http -> web): pool, limits.headers",
        "  - public :83 (tcp): 1 connection",
        "routes",
        "  + api.example.com/v1/ -> api",
        "  ~ /a -> web, now api",
        "  - /b -> web",
        "applied at once: log.level",
        "waits for the next start of lbproxy: proxy.control",
        "workers: 1 -> 2",
        "pool web: every backend is replaced, generation 7 -> 8, 2 -> 3 backends",
        "  because of: command, size",
        "  runs first: manage.py migrate --check",
        "  replaced: web.1@7 web.2@7",
        "  started: web.3@8",
        "  also new: drain.request",
        "  runs afterwards: curl 'a b'",
        "  in hand: 3 requests, 1 websocket, for up to 30.0s",
        "  memory: 100.0MiB now, 100.0MiB more for 2 at a time",
        "  takes about 41.2s, by the median of the last 3 reloads",
        "pool api: changed, generation 7 serves on, 40 -> 20 backends",
        "  because of: size",
        f"  stopped: {' '.join(f'api.{slot}@7' for slot in range(21, 32))} and 9 more",
        f"  kept: {' '.join(f'api.{slot}@7' for slot in range(1, 12))} and 9 more",
        "pool new: new, 1 backend",
        "  started: new.1@1",
        "pool fixed: some backends change, generation 7 -> 8, 2 backends",
        "  because of: targets",
        "  replaced: fixed.2@7",
        "  kept: fixed.1@7",
        "pool idle: unchanged, generation 7 with 2 backends",
        "pool old: removed, it is not in the file any more",
        "  stopped: old.1@2",
        "  in hand: 1 tcp, for up to 1m30s",
        "connections affected: 3 requests, 1 websocket, 1 tcp",
        "memory: 100.0MiB now, 200.0MiB at the peak (250.0MiB while all old backends still drain), and what new will "
        "need; free: 4.0GiB in the host and 50.0MiB in the cgroup: too little",
        "how long new will take is not known: the history has no reload of that kind",
    ]


@pytest.mark.parametrize("width", [60, 80, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    lines = plan_lines(EVERYTHING, PLAIN, width)
    assert max(map(len, lines)) <= width
    assert "".join("".join(lines).split()) == "".join("".join(plan_lines(EVERYTHING, PLAIN)).split())


def test_a_name_from_the_file_does_not_control_the_terminal() -> None:
    listeners = {**NOTHING["listeners"], "gone": [{**EVERYTHING["listeners"]["gone"][0], "name": "a\x1b[2Jb"}]}
    lines = plan_lines({**NOTHING, "nothing": False, "differs": True, "listeners": listeners}, PLAIN)
    assert lines[1] == "  - a\\x1b[2Jb :83 (tcp): 1 connection"


def test_the_signs_have_colors() -> None:
    lines = plan_lines(EVERYTHING, Options(color="always"))
    assert "\x1b[32m  + api.example.com/v1/ -> api\x1b[0m" in lines
