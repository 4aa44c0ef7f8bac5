"""A deploy whose clients and backends the test plays: a pool of one fixed address, and a reload that brings another.

with swapping(tmp_path, drain='websocket = "0s"') as stage:
    client = stage.dial()
    backend = stage.backend.websocket()       # the other end, in this process
    with stage.reload() as verdict:           # the old address drains; behind the block it is over
        assert client.follow().closes == [(1001, "going away")]
    assert verdict["cut"] == 0
"""

import json
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from support.apps.scripted import Peer, Scripted, scripted
from support.serve import Serving, serving
from support.ws import WebSocketEnd, dial, serve_upgrade

PATIENCE_S = 10.0


class Door:
    """The connections to a backend, in their order; probes are left out."""

    def __init__(self, *, upgrades: bool) -> None:
        self.behind = b""  # sent in one packet with each 101
        self.refuses = False  # upgrades are left to the test, as every other request
        self.answers: Callable[[bytes], bytes] | None = None  # head -> response: the test does not want to play
        self.over = threading.Event()
        self.made: Scripted | None = None
        self._upgrades = upgrades
        self._peers: queue.Queue[Peer] = queue.Queue()
        self._websockets: queue.Queue[WebSocketEnd] = queue.Queue()

    def behave(self, peer: Peer) -> None:
        if self.answers is not None:
            while True:
                peer.send(self.answers(peer.read_head()))
        if self._upgrades:
            head = peer.read_head()
            if b"\r\nupgrade: websocket\r\n" in head.lower() and not self.refuses:
                early = bytes(peer.received[len(head) :])
                self._websockets.put(serve_upgrade(peer.sock, head, early, self.behind))
                self.over.wait()
                return
        else:
            peer.read(1)
        self._peers.put(peer)
        self.over.wait()

    @property
    def port(self) -> int:
        assert self.made is not None
        return self.made.port

    @property
    def received(self) -> list[bytes]:
        """The bytes of each connection that sent any."""
        assert self.made is not None
        return self.made.received

    def peer(self) -> Peer:
        """The next connection with another request; its head is in `received`."""
        return self._peers.get(timeout=PATIENCE_S)

    def websocket(self) -> WebSocketEnd:
        """The next connection whose upgrade was accepted."""
        return self._websockets.get(timeout=PATIENCE_S)


@contextmanager
def opened(*, upgrades: bool) -> Iterator[Door]:
    door = Door(upgrades=upgrades)
    with scripted(door.behave) as door.made:
        try:
            yield door
        finally:
            door.over.set()


CONFIG = """
[proxy]
workers = {workers}

[[listener]]
address = "127.0.0.1:$port"
mode = "{mode}"
pool = "web"

[pool.web]
targets = ["127.0.0.1:{target}"]
{more}

[pool.web.reload]
min_ready = "0s"

[pool.web.drain]
{drain}
"""


class Stage:
    def __init__(self, lb: Serving, backend: Door, fresh: Door, **texts: str | int) -> None:
        self.lb = lb
        self.backend = backend
        self.fresh = fresh
        self._texts = texts
        self._dialed: list[WebSocketEnd] = []

    def dial(self, path: str = "/ws", *, behind: bytes = b"") -> WebSocketEnd:
        """A WebSocket client; see `ws.dial`."""
        self._dialed.append(dial(self.lb.port, path, behind=behind))
        return self._dialed[-1]

    def close(self) -> None:
        for end in self._dialed:
            end.sock.close()

    @contextmanager
    def reload(self) -> Iterator[dict[str, Any]]:
        """Replace this address by the other one. In the block the drain has begun; after it `reload.done` is in the
        dictionary."""
        verdict: dict[str, Any] = {}
        self.lb.write_config(CONFIG.format(target=self.fresh.port, **self._texts))

        def run() -> None:
            answer = self.lb.api("POST", "/v1/reload", {})
            assert answer.status == 200, answer.body
            lines = [json.loads(line) for line in answer.body.splitlines()]
            verdict.update(next(line for line in lines if line["event"] == "reload.done"))

        thread = threading.Thread(target=run)
        thread.start()
        self.lb.wait_log('"backend.draining"')
        try:
            yield verdict
        finally:
            thread.join(PATIENCE_S)
        assert verdict, "the reload did not end"


@contextmanager
def swapping(
    directory: Path, drain: str = "", *, mode: str = "http", more: str = "", workers: int = 1
) -> Iterator[Stage]:
    """A stage. `more`: keys of [pool.web]; `drain`: its graces."""
    texts = {"drain": drain, "mode": mode, "more": more, "workers": workers}
    upgrades = mode == "http"
    with (
        opened(upgrades=upgrades) as backend,
        opened(upgrades=upgrades) as fresh,
        serving(CONFIG.format(target=backend.port, **texts), directory) as lb,
        closing(Stage(lb, backend, fresh, **texts)) as stage,
    ):
        yield stage
