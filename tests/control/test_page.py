"""The page of [admin]: what stands on it, and that no text from outside becomes markup."""

import copy
from html import unescape
from html.parser import HTMLParser

import pytest

from lbproxy.control.page import ABSENT, ASSETS, Page, text
from lbproxy.control.pool_series import Sample

HOSTILE = "<script>alert(1)</script>'\"&\x1b[2J\x00\u202e\ud800"
BACKEND = {
    "id": "web.1",
    "generation": 7,
    "state": "ready",
    "pid": 12,
    "address": "127.0.0.1:9",
    "uptime_s": 252.0,
    "restarts": 3,
    "in_flight": 2,
    "leases": {"request": 1, "websocket": 1},
    "requests_total": 31,
}
POOL = {"generation": 7, "size": 1, "ready": 1, "reloading": False, "requests_total": 9, "backends": [BACKEND]}
DOCUMENT = {
    "name": "edge-1",
    "pid": 1,
    "uptime_s": 90061.0,
    "config": {"path": "lb.toml", "loaded_at": "2026-01-01T12:00:00.000Z"},
    "degraded": False,
    "workers": [{"state": "serving"}],
    "workers_wanted": 1,
    "listeners": [{"name": "public", "address": ":80", "mode": "http", "pool": None, "connections": 5}],
    "pools": {"web": POOL},
}


def event(name, said="", level="info", **values):
    return {"event": name, "time": "2026-01-01T12:00:00.000Z", "level": level, "text": said, **values}


STARTED = event("reload.started", "reload of web started (command)", reload="r1", sizes=[1])
RELOAD = [
    STARTED,
    event("backend.starting", backend="web.1@8", pool="web"),
    event("backend.ready", backend="web.1@8", pool="web"),
    event("backend.proved", backend="web.1@8", pool="web"),
    event("backend.draining", backend="web.1@7", pool="web"),
]


class Reader(HTMLParser):
    """The text of each section by its id, and every tag with its attributes."""

    def __init__(self, page):
        super().__init__()
        self.sections, self.tags, self._open = {}, [], None
        self.feed(page.decode())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "section":
            self._open = dict(attrs)["id"]
            self.sections[self._open] = ""

    def handle_endtag(self, tag):
        if tag == "section":
            self._open = None

    def handle_data(self, data):
        if self._open is not None:
            self.sections[self._open] += data


def read(document=DOCUMENT, events=(), reload=(), series=None):
    return Reader(Page(document, events, reload, series or {}).render())


def changed(**backend):
    document = copy.deepcopy(DOCUMENT)
    document["pools"]["web"]["backends"][0] |= backend
    return document


def test_the_page_tells_pools_backends_and_listeners():
    sections = read(series={"web": [Sample(0.0, 0.0), Sample(1234.0, 0.5)]}).sections
    assert (
        sections["summary"]
        == "● all ready · 1 of 1 workers · pid 1 · up 1d01h · lb.toml as of 2026-01-01T12:00:00.000Z"
    )
    assert "web @7● 1/1 ready" in sections["pools"]
    assert "requests/s 1234" in sections["pools"]
    assert "5xx/s 0.5" in sections["pools"]
    assert "WebSockets 1" in sections["pools"]
    assert "web.1@7● ready4m12s2 (1 request, 1 websocket)31312127.0.0.1:9" in sections["backends"]
    assert "public:80httpby route5" in sections["listeners"]
    assert sections["reload"] == ""


def test_figures_of_the_document_come_first_and_missing_ones_are_a_dash():
    assert f"requests/s {unescape(ABSENT)}" in read().sections["pools"]
    document = copy.deepcopy(DOCUMENT)
    document["pools"]["web"] |= {"requests_per_s": 12.34, "p50_s": 0.0123, "p99_s": 1.5}
    pools = read(document).sections["pools"]
    assert "requests/s 12.3" in pools
    assert "p50 12.3 ms" in pools
    assert "p99 1.50 s" in pools


@pytest.mark.parametrize(
    ("state", "kind"),
    [("ready", "good"), ("starting", "busy"), ("draining", "busy"), ("unhealthy", "bad"), ("failed", "bad")],
)
def test_a_state_has_a_colour_and_its_word(state, kind):
    page = read(changed(state=state, why="GET /healthz: 500"))
    assert f"{state}GET /healthz: 500" in page.sections["backends"]
    assert ("span", {"class": kind}) in page.tags


def test_a_running_reload_is_shown_as_steps_with_what_is_left():
    reload = read(changed(state="draining", drain_left_s=12.0), reload=RELOAD).sections["reload"]
    assert reload.startswith("Reload running")
    assert "1 of 1 proved" in reload
    assert "web.1@8starting → ready → ● proved" in reload
    assert "web.1@7◐ draining: 2 (1 request, 1 websocket) in hand, 12s at most" in reload


def test_a_change_that_stands_half_way_and_a_paused_pool_are_said():
    document = changed()
    paused = {"id": "r1", "verb": "rollback", "step": "paused", "generation": 8}
    document["pools"]["web"] |= {"reloading": True, "reload": paused, "paused": {"maintenance": True}}
    started = {**STARTED, "verb": "rollback", "sizes": []}
    page = read(document, reload=[started, *RELOAD[1:], event("reload.paused", "web: stopped half-way", "error")])
    assert "web @7● 1/1 ready ▲ paused ▲ maintenance" in page.sections["pools"]
    assert page.sections["reload"].startswith("Rollback running")
    assert " proved " not in page.sections["reload"], "how many it makes is not known"
    assert "▲ error web: stopped half-way" in page.sections["reload"]


def test_a_reload_that_is_over_is_its_verdict():
    over = [*RELOAD, event("reload.done", "reloaded web to generation 8 in 4.2s"), event("reload.finished", "fine")]
    reload = read(reload=over).sections["reload"]
    assert reload.startswith("Last reload")
    assert "reloaded web to generation 8 in 4.2s" in reload
    assert "proved" not in reload


def test_the_newest_event_stands_first_with_its_level_as_a_word():
    events = read(events=[event("a", "first"), event("b", "second", "error")]).sections["events"]
    assert events == "Last events12:00:00 ▲ error second12:00:00 info first"


def test_hostile_text_is_never_markup():
    document = changed(state=HOSTILE, address=HOSTILE, why=HOSTILE, id=HOSTILE, leases={HOSTILE: 1})
    document |= {"name": HOSTILE, "config": {"path": HOSTILE, "loaded_at": HOSTILE}}
    document["listeners"][0] |= dict.fromkeys(("name", "address", "mode", "pool"), HOSTILE)
    document["pools"][HOSTILE] = document["pools"].pop("web")
    reload = [event("reload.started", HOSTILE), event("backend.draining", HOSTILE, backend=HOSTILE, pool=HOSTILE)]
    page = Page(document, [event("notice", HOSTILE, HOSTILE)], reload, {HOSTILE: [Sample(1.0, 1.0)] * 2}).render()
    tags = Reader(page).tags
    assert [attributes for tag, attributes in tags if tag == "script"] == [{"src": "/page.js", "defer": None}]
    assert not any(name.startswith("on") or name == "style" for _, attributes in tags for name in attributes)
    assert b"\x1b" not in page
    assert b"\x00" not in page
    assert {char for char in page.decode() if not char.isprintable()} == {"\n"}


def test_a_text_keeps_its_lines_and_its_letters():
    assert text("Zürich\n✓ <b>") == "Zürich\n✓ &lt;b&gt;"


def test_there_is_nothing_that_the_content_security_policy_forbids():
    for _, attributes in read(reload=RELOAD).tags:
        assert "style" not in attributes
        for name in ("src", "href"):
            assert attributes.get(name, "/").startswith(("/", "data:")), attributes
    assert all(body for body, _ in ASSETS.values())
    assert b"innerHTML" not in ASSETS["/page.js"][0]
