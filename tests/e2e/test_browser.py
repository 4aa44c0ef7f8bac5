"""What a browser sees of reloads: headless Chromium through a real lbproxy."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.browser import TALK, Page, browsing
from support.serve import serving
from support.web import web

pytestmark = pytest.mark.peer("chromium")

LISTEN = """
window.ids = []
window.errors = 0
window.source = new EventSource('/sse?every=0.01')
source.onmessage = event => ids.push(Number(event.lastEventId))
source.onerror = () => { errors += 1; if (source.readyState === 2) errors += 1000 }
"""


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with browsing() as page:
        yield page


def config(drain: str, size: int = 1) -> str:
    return web(
        'bind = "fd"',
        command="$longlived",
        size=size,
        reload='min_ready = "0s"\nmax_surge = "100%"',
        more=f"[pool.web.drain]\n{drain}",
    )


def test_a_websocket_is_closed_cleanly_with_1001_and_comes_back(page: Page, tmp_path: Path) -> None:
    with serving(config('websocket = "200ms"'), tmp_path) as lb:
        page.go(f"http://127.0.0.1:{lb.port}/page")
        page.run(TALK)
        for reload in range(3):
            page.wait(f"events.length >= {3 * reload + 2}")
            assert lb.api("POST", "/v1/reload", {}).status == 200
        page.wait("events.length >= 11")
        went = [1001, "going away", True]
        assert page.run("events") == ["open", "hello", went] * 3 + ["open", "hello"]
        page.go("about:blank")


def test_an_event_source_sees_every_id_once_and_in_order_over_twenty_reloads(page: Page, tmp_path: Path) -> None:
    with serving(config('stream = "60ms"\ngoodbye = "100ms"'), tmp_path) as lb:
        page.go(f"http://127.0.0.1:{lb.port}/page")
        page.run(LISTEN)
        for _ in range(20):
            before = page.run("ids.length")
            assert lb.api("POST", "/v1/reload", {}).status == 200
            page.wait(f"ids.length > {before}")
        ids = page.run("source.close(), ids")
        errors = page.run("errors")
        assert ids == list(range(1, len(ids) + 1))
        assert errors == 20, "each reload ended the stream once, and EventSource came back by itself"
        lb.wait_until(lambda: lb.log().count('"failed":0,"cut":0') == 20)
        page.go("about:blank")
