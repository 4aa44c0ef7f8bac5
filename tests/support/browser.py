"""A headless Chromium with one page, driven over the DevTools protocol.

with browsing() as page:
    page.go("http://127.0.0.1:8080/page")
    assert page.run("1 + 1") == 2             # a promise is awaited
"""

import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from websockets.sync.client import ClientConnection, connect

PATIENCE_S = 20.0
LOOK_AGAIN_S = 0.2
# For a page: a WebSocket that is made again when it has ended, and what it has seen in `events`.
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
# Those that keep it from calling home matter: the network is closed, and it would try for ever.
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
    "about:blank",
)


class Page:
    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            answer = json.loads(self._socket.recv(timeout=PATIENCE_S))
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    def go(self, url: str) -> None:
        """Load a page and wait for it."""
        self.call("Page.enable")
        result = self.call("Page.navigate", url=url)
        assert not result.get("errorText"), result
        while self.run("document.readyState === 'complete' && location.href") != url:
            self._wait_event("Page.loadEventFired")  # what ran was still in the page before

    def _wait_event(self, name: str) -> None:
        """Wait for the next event of this name. Events during a call are not kept, but then no wait is needed."""
        with suppress(TimeoutError):
            while json.loads(self._socket.recv(timeout=LOOK_AGAIN_S)).get("method") != name:
                pass

    def run(self, script: str) -> Any:
        """The value of an expression."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, condition: str) -> None:
        """Wait until an expression is true."""
        look = f"done => {{ const look = () => {condition} ? done() : setTimeout(look, 5); look() }}"
        self.run(f"new Promise({look})")


@contextmanager
def browsing(*flags: str) -> Iterator[Page]:
    profile = tempfile.mkdtemp(prefix="lb-chromium-")
    command = ["chromium", *FLAGS, *flags, f"--user-data-dir={profile}"]
    try:
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
        ) as chromium:
            try:
                with connect(_page_url(chromium), max_size=None, proxy=None) as socket:
                    yield Page(socket)
            finally:
                os.killpg(chromium.pid, signal.SIGKILL)
    finally:
        shutil.rmtree(profile, ignore_errors=True)


def _page_url(chromium: "subprocess.Popen[str]") -> str:
    """The DevTools address of the first page; Chromium itself reports that of the browser."""
    assert chromium.stderr is not None
    said = ""
    for line in chromium.stderr:
        said += line
        if "DevTools listening on " in line:
            break
    else:
        raise AssertionError(f"Chromium did not start: {said}")
    url = line.split()[-1]
    with connect(url, proxy=None) as socket:
        browser = Page(socket)
        targets = browser.call("Target.getTargets")["targetInfos"]
    page = next(target["targetId"] for target in targets if target["type"] == "page")
    return url.partition("/devtools/")[0] + f"/devtools/page/{page}"
