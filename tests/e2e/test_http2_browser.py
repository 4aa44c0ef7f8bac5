"""What a browser sees over HTTP/2: headless Chromium, TLS, ALPN, through a real lbproxy that reloads meanwhile."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.browser import TALK, Page, browsing
from support.serve import Serving, serving
from support.tls_peer import pem
from support.web import web

pytestmark = pytest.mark.peer("chromium")

IMAGES = 200
LOAD = """
window.loaded = 0
window.failed = 0
for (let number = 0; number < %d; number++) {
  const image = new Image()
  image.onload = () => { loaded += 1 }
  image.onerror = () => { failed += 1 }
  image.src = `/image?number=${number}&s=${0.1 + number %% 10 / 20}`
  document.body.append(image)
}
"""


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with browsing("--ignore-certificate-errors") as page:
        yield page


def config() -> str:
    text = web(
        'bind = "fd"',
        command="$longlived",
        size=2,
        reload='min_ready = "0s"\nmax_surge = "100%"',
        more='[pool.web.drain]\nwebsocket = "200ms"\n[log]\naccess = "combined"\naccess_path = "access.log"',
    )
    tls = f'name = "public"\ntls = {{ cert = "{pem()}", key = "{pem()}" }}\nprotocols = ["h2", "http/1.1"]'
    return text.replace('name = "public"', tls)


def reload(lb: Serving) -> None:
    assert lb.cli("reload").returncode == 0


def accepted(lb: Serving) -> str:
    """How many connections there have been, as a line of the metrics."""
    found = re.search(r"^lbproxy_connections_total.*$", lb.api("GET", "/metrics").body.decode(), re.MULTILINE)
    assert found
    return found[0]


def test_200_images_over_one_connection_and_a_websocket_during_reloads(page: Page, tmp_path: Path) -> None:
    with serving(config(), tmp_path) as lb:
        page.go(f"https://127.0.0.1:{lb.port}/page")
        before = accepted(lb)
        page.run(LOAD % IMAGES)
        page.wait("loaded > 10")
        reload(lb)
        page.wait(f"loaded + failed == {IMAGES}")
        assert page.run("[loaded, failed]") == [IMAGES, 0]
        assert set(page.run("performance.getEntriesByType('resource').map(one => one.nextHopProtocol)")) == {"h2"}

        page.run(TALK)
        for number in range(2):
            page.wait(f"events.length >= {3 * number + 2}")
            reload(lb)
        page.wait("events.length >= 8")
        went = [1001, "going away", True]
        assert page.run("events") == ["open", "hello", went] * 2 + ["open", "hello"]

        assert accepted(lb) == before, "one connection for all of it"
        page.go("about:blank")
        access = tmp_path / "access.log"
        lb.wait_until(lambda: access.read_text().count('"GET /ws HTTP/2.0" 101 ') == 2)  # by extended CONNECT
