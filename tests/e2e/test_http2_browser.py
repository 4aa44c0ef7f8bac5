"""What a browser sees over HTTP/2: headless Chromium, TLS, ALPN, through a real lbproxy that reloads meanwhile."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.browser import Page, browsing
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
TALK = """
window.events = []
window.talk = () => {
  const socket = new WebSocket(location.origin.replace('http', 'ws') + '/ws')
  socket.onopen = () => { events.push('open'); socket.send('hello') }
  socket.onmessage = event => events.push(event.data)
  socket.onclose = event => {
    events.push([event.code, event.reason, event.wasClean])
    if (events.length < 20) talk()
  }
}
talk()
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
        more='[pool.web.drain]\nwebsocket = "200ms"\n[log]\naccess = "json"',
    )
    tls = f'name = "public"\ntls = {{ cert = "{pem()}", key = "{pem()}" }}\nprotocols = ["h2", "http/1.1"]'
    return text.replace('name = "public"', tls)


def reload(lb: Serving) -> None:
    assert lb.cli("reload").returncode == 0


def test_200_images_over_one_connection_and_a_websocket_during_reloads(page: Page, tmp_path: Path) -> None:
    with serving(config(), tmp_path) as lb:
        page.go(f"https://127.0.0.1:{lb.port}/page")
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

        metrics = lb.api("GET", "/metrics").body.decode()
        assert 'lbproxy_connections_total{listener="public"} 1.0' in metrics, "one connection for all of it"
        page.go("about:blank")
        lb.wait_log('"target":"/ws"')
        (*_, line) = [line for line in lb.log().splitlines() if '"/ws"' in line]
        assert "HTTP/2.0" in line, "an upgrade of HTTP/1.1 would have a connection of its own"
