"""The page of [admin] in headless Chromium, before a real lbproxy: it opens, moves, turns red, and fits."""

import os
import signal
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.browser import Page, browsing
from support.serve import serving
from support.web import web

pytestmark = pytest.mark.peer("chromium")

TOKEN = "s3cr3t-s3cr3t-s3cr3t"
HOSTILE = "<b>x</b><script>document.title='owned'</script>"
CONFIG = web(
    size=2,
    restart='stop_timeout = "3s"\nbackoff = { first = "30s", max = "30s" }',
    reload='min_ready = "300ms"',
    more=f"""
[[listener]]
name = "{HOSTILE.replace(" ", "")}"
address = "127.0.0.1:$port3"

[admin]
address = "127.0.0.1:$port2"
token = "{TOKEN}"
""",
)


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with browsing() as page:
        yield page


def said(page: Page, section: str) -> str:
    text: str = page.run(f"document.getElementById('{section}').textContent")
    return text


def look(page: Page, width: int, *, dark: bool) -> None:
    page.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 600)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    page.call("Emulation.setEmulatedMedia", features=[scheme])


def test_the_page_lives(page: Page, tmp_path: Path) -> None:
    with serving(CONFIG, tmp_path) as lb:
        page.call("Page.enable")
        page.call("Page.addScriptToEvaluateOnNewDocument", source=WATCH)
        # A browser logs in by Basic. The page must not ask with the password in the URL: fetch refuses that.
        page.call("Page.navigate", url=f"http://me:{TOKEN}@127.0.0.1:{lb.ports['port2']}/")
        page.wait("document.getElementById('live')?.textContent === '● live'")
        assert "2/2 ready" in said(page, "pools")
        assert HOSTILE.replace(" ", "") in said(page, "listeners")
        assert page.run("document.title") != "owned"
        assert page.run("document.querySelectorAll('b').length") == page.run(
            "document.querySelectorAll('.stat b').length"
        )

        # A reload is seen moving: the words come one after the other without loading the page again.
        page.run("window.same = true")
        assert lb.cli("reload", "--no-wait").returncode == 0
        for words in ("Reload running", "proved", "draining", "Last reload"):
            page.wait(f"seen.has({words!r})")
        assert "reloaded web to generation 2" in said(page, "reload")

        # A killed backend turns red, and says so.
        victim = next(backend for backend in lb.backends() if backend["id"] == "web.1")
        os.kill(victim["pid"], signal.SIGKILL)
        page.wait("document.querySelector('#backends .bad')?.textContent === '▲ backoff'")
        light = page.run("getComputedStyle(document.querySelector('#backends .bad')).color")
        red, green, blue = map(int, light.removeprefix("rgb(").removesuffix(")").split(", "))
        assert red > 150 > 60 > max(green, blue)
        assert "1/2 ready" in said(page, "pools")
        assert "degraded" in said(page, "summary")
        assert page.run("window.same") is True
        assert page.run("blocked") == [], "nothing is refused by the content security policy"

        # It fits a telephone, and has colours of its own in the dark.
        look(page, 400, dark=True)
        assert page.run("document.documentElement.scrollWidth") <= 400
        assert page.run("getComputedStyle(document.querySelector('#backends .bad')).color") != light
        picture = page.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"]
        (tmp_path / "narrow.png").write_bytes(b64decode(picture))

        # Without JavaScript it is read-only and asks again by itself.
        page.call("Emulation.setScriptExecutionDisabled", value=True)
        page.go(f"http://127.0.0.1:{lb.ports['port2']}/")
        assert "1/2 ready" in said(page, "pools")
        assert page.run("document.querySelector('meta[http-equiv=refresh]').content") == "5"
        page.call("Emulation.setScriptExecutionDisabled", value=False)
        page.go("about:blank")


# Notes which words stood in the part of the reload, and what the policy blocked.
WATCH = """
window.seen = new Set()
window.blocked = []
document.addEventListener('securitypolicyviolation', event => blocked.push(event.violatedDirective))
document.addEventListener('DOMContentLoaded', () => new MutationObserver(() => {
  const text = document.getElementById('reload').textContent
  for (const words of ['Reload running', 'proved', 'draining', 'Last reload']) if (text.includes(words)) seen.add(words)
}).observe(document.querySelector('main'), { childList: true, subtree: true }))
"""
