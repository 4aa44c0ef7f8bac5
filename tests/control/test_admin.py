"""[admin] over real sockets, in front of a world without processes: rules, what is shown, limits, another address."""

import json
import socket
from contextlib import asynccontextmanager
from dataclasses import replace

import trio
from support.ports import free_port
from support.trio_test import trio_test

from control.fakes import Behaviour, World, pool_settings, settings_of
from lbproxy.address import Address
from lbproxy.control import admin as admin_module
from lbproxy.control import event_stream
from lbproxy.control.admin import Admin, shown
from lbproxy.control.admin_socket import AdminSocket
from lbproxy.control.api import Api
from lbproxy.control.audit import Audit
from lbproxy.control.connections import OpenConnections
from lbproxy.control.drains import Drains
from lbproxy.control.event_stream import EventStreams
from lbproxy.control.failures import FailedExchanges
from lbproxy.control.history import History
from lbproxy.control.reloader import Reloader
from lbproxy.settings import AdminSettings, ReloadSettings, Secret
from lbproxy.telemetry.event_ring import EventRing
from lbproxy.telemetry.events import BackendExited, Notice

TOKEN = "0123456789abcdef"
BEARER = (f"Authorization: Bearer {TOKEN}",)
JSON = ("Content-Type: application/json", "Content-Length: 2")


async def connect(address):
    if address.path is not None:
        return await trio.open_unix_socket(address.path)
    return await trio.open_tcp_stream(address.host, address.port)


class Desk:
    """[admin] of a world."""

    def __init__(self, tmp_path, address=None, **settings):
        pool = pool_settings(size=1, directory=str(tmp_path), reload=ReloadSettings(min_ready_s=0.0))
        self.settings = AdminSettings(address or Address("127.0.0.1", free_port()), **settings)
        self.world = World(settings_of(pool), lambda spec: Behaviour(ready_after_s=0.01, stops_in_s=0.0))
        self.ring = EventRing()
        self.stopping = False

    @asynccontextmanager
    async def running(self):
        world = self.world
        sock = AdminSocket()
        async with world.running():
            reloader = Reloader(world.context, lambda: world.settings)
            await world.nursery.start(reloader.run)
            api = Api(
                *(world.context, world.grid, world.log, world.resources.outputs, reloader),
                drains=Drains(world.context),
                stop=lambda now: None,
                started=0.0,
                connections=OpenConnections(world.workers, world.fleet),
                failures=FailedExchanges(world.workers),
                history=History(lambda record: None),
                audit=Audit(world.emit),
                events=EventStreams(self.ring),
                is_stopping=lambda: self.stopping,
            )
            sock.bind(self.settings.address)
            self.admin = Admin(self.settings, sock, api)
            world.nursery.start_soon(self.admin.run)
            await trio.testing.wait_all_tasks_blocked()
            yield self
        sock.close()

    async def ask(self, request, *lines, body=b"", address=None):
        """The status, the head and the body of one answer."""
        async with await connect(address or self.settings.address) as stream:
            head = [f"{request} HTTP/1.1", "Host: localhost", *lines, "", ""]
            await stream.send_all("\r\n".join(head).encode() + body)
            raw = b""
            while data := await stream.receive_some():
                raw += data
        head, _, body = raw.partition(b"\r\n\r\n")
        return int(head.split()[1]), head.decode(), body

    async def follow(self, *lines):
        """A stream of events, with what has come of it."""
        stream = await connect(self.settings.address)
        await stream.send_all("\r\n".join(["GET /v1/events HTTP/1.1", "Host: localhost", *lines, "", ""]).encode())
        raw = b""
        while b"retry" not in raw and b"error" not in raw:
            raw += await stream.receive_some()
        return stream, raw


@trio_test
async def test_without_a_token_it_can_be_read_and_says_so(tmp_path):
    async with Desk(tmp_path).running() as desk:
        status, head, body = await desk.ask("GET /v1/status")
        assert status == 200
        assert json.loads(body)["pools"]["web"]["ready"] == 1
        assert "Content-Security-Policy: default-src 'none'; script-src 'self'" in head
        assert "nosniff" in head
        status, head, body = await desk.ask("HEAD /livez")
        assert (status, body) == (200, b"")
        assert "Content-Length: 14" in head
        for request, answer in (
            ("GET /livez", 200),
            ("GET /readyz", 200),
            ("GET /v1/logs", 404),
            ("GET /v1/history", 404),
            ("GET /nothing", 404),
            ("GET /v1/../livez", 404),
            ("OPTIONS /livez", 403),
        ):
            assert (await desk.ask(request))[0] == answer, request
        assert (await desk.ask("POST /v1/reload", *JSON, body=b"{}"))[0] == 403
        assert (await desk.ask("GET http://evil.com/livez"))[0] == 421


@trio_test
async def test_readiness_is_of_each_pool_and_ends_with_the_stop(tmp_path):
    async with Desk(tmp_path).running() as desk:
        assert (await desk.ask("GET /readyz?pool=web"))[0] == 200
        assert (await desk.ask("GET /readyz?pool=api"))[0] == 404
        desk.world.member("web.1@1").runner.fall()
        assert (await desk.ask("GET /readyz"))[0] == 503, "it serves, for want of another, but is not ready"
        desk.stopping = True
        assert (await desk.ask("GET /readyz"))[0] == 503
        assert (await desk.ask("GET /livez"))[0] == 200


@trio_test
async def test_with_the_token_it_can_change_things_and_shows_no_output(tmp_path):
    async with Desk(tmp_path, token=Secret(TOKEN)).running() as desk:
        assert (await desk.ask("GET /v1/status"))[0] == 401
        status, head, _ = await desk.ask("GET /v1/status", "Authorization: Bearer x")
        assert status == 401
        assert "WWW-Authenticate: Basic" in head
        assert (await desk.ask("GET /v1/status", *BEARER))[0] == 200
        desk.world.behave = lambda spec: Behaviour(breaks=True, ready_after_s=0.0, stops_in_s=0.0)
        status, _, body = await desk.ask("POST /v1/reload", *BEARER, *JSON, body=b"{}")
        assert status == 200
        assert b'"result":"rolled_back"' in body
        assert b"ImportError" not in body
        assert (await desk.ask("POST /v1/reload", *BEARER, "Content-Length: 9", body=b"not json."))[0] == 415
        many = [(await desk.ask("GET /", "Authorization: Bearer x"))[0] for _ in range(10)]
        assert many == [401] * 9 + [429]
        assert (await desk.ask("GET /livez"))[0] == 200


@trio_test
async def test_events_are_told_without_output_to_at_most_so_many(tmp_path, monkeypatch):
    monkeypatch.setattr(event_stream, "MOST_STREAMS", 3)
    async with Desk(tmp_path).running() as desk:
        streams = [await desk.follow() for _ in range(3)]
        refused, raw = await desk.follow()
        assert b"503 Service Unavailable" in raw
        await refused.aclose()
        how = "command not found: 'x' (PATH is /opt:/secret)"
        desk.ring.add(BackendExited("web", "web.1@1", None, how, 1.0, ("Traceback",)), 1.0)
        for stream, _ in streams:
            told = await stream.receive_some()
            assert b"command not found: 'x'" in told
            assert b"Traceback" not in told
            assert b"/secret" not in told
        await streams[0][0].aclose()
        with trio.fail_after(5):
            while (again := await desk.follow())[1].startswith(b"HTTP/1.1 503"):
                await again[0].aclose()
        for stream, _ in [*streams, again]:
            await stream.aclose()


def test_what_is_never_shown_is_taken_out_at_any_depth():
    report = "lb.toml:6:1: error: oh\n     6 | env = { KEY = 'x' }\n1 error"
    values = {"a": [{"output": ["x"], "b": ("c", 1)}], "problems": "x", "error": report, "env": {}, "n": None}
    assert shown(values) == {"a": [{"b": ["c", 1]}], "error": "lb.toml:6:1: error: oh\n1 error", "n": None}


@trio_test
async def test_huge_slow_and_broken_requests_harm_nobody(tmp_path):
    async with Desk(tmp_path).running() as desk:
        assert (await desk.ask("GET /livez", "X: " + "x" * 70_000))[0] == 431
        assert (await desk.ask("GET /livez", *[f"X{number}: 1" for number in range(200)]))[0] == 431
        assert (await desk.ask("GET /livez", "Content-Length: 99999999"))[0] == 413
        assert (await desk.ask("GET /livez", "Host: other"))[0] == 400
        assert (await desk.ask("\x16\x03\x01"))[0] == 400
        slow = []
        for _ in range(100):  # more than there is room for
            stream = await connect(desk.settings.address)
            await stream.send_all(b"GET /livez HTTP/1.1\r\n")
            slow.append(stream)
        with trio.fail_after(5):
            assert (await desk.ask("GET /livez"))[0] == 200
            answers = []

            async def ask():
                answers.append((await desk.ask("GET /v1/status"))[0])

            async with trio.open_nursery() as nursery:
                for _ in range(200):
                    nursery.start_soon(ask)
        assert answers == [200] * 200
        for stream in slow:
            await stream.aclose()


@trio_test
async def test_a_reload_moves_it_and_a_taken_address_leaves_it_where_it_is(tmp_path):
    async with Desk(tmp_path).running() as desk:
        moved = Address("127.0.0.1", free_port())
        desk.admin.apply(replace(desk.settings, address=moved, token=Secret(TOKEN)))
        await trio.testing.wait_all_tasks_blocked()
        assert (await desk.ask("GET /v1/status", address=moved))[0] == 401
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            taken = Address("127.0.0.1", other.getsockname()[1])
            desk.admin.apply(replace(desk.settings, address=taken))
            await trio.testing.wait_all_tasks_blocked()
        assert "[admin] cannot listen" in desk.world.of(Notice)[0].text
        assert (await desk.ask("GET /v1/status", address=moved))[0] == 200
        desk.admin.apply(None)
        await trio.testing.wait_all_tasks_blocked()
        try:
            await desk.ask("GET /livez", address=moved)
        except OSError:
            pass
        else:
            raise AssertionError("it is off, and answers")


@trio_test
async def test_an_open_page_does_not_ask_for_events_that_need_the_token(tmp_path):
    async with Desk(tmp_path, token=Secret(TOKEN), open=("/",)).running() as desk:
        assert b'data-events="no"' in (await desk.ask("GET /"))[2]
        assert b'data-events="yes"' in (await desk.ask("GET /", *BEARER))[2]
        assert (await desk.ask("GET /page.css"))[1].count("Content-Type: text/css; charset=utf-8") == 1
        assert (await desk.ask("GET /page.js"))[0] == 200
        assert (await desk.ask("GET /v1/status"))[0] == 401
        assert (await desk.ask("GET /livez"))[0] == 401, "open is what the file says"


@trio_test
async def test_many_who_look_share_a_page_until_something_happens(tmp_path, monkeypatch):
    monkeypatch.setattr(admin_module, "_SHARED_S", 0.0)
    async with Desk(tmp_path).running() as desk:
        first = (await desk.ask("GET /"))[2]
        desk.world.member("web.1@1").runner.fall()
        assert (await desk.ask("GET /"))[2] == first
        desk.ring.add(Notice("something <i>happened</i>"), 1.0)
        changed = (await desk.ask("GET /"))[2]
        assert b"something &lt;i&gt;happened&lt;/i&gt;" in changed
        assert b"unhealthy" in changed


@trio_test
async def test_a_unix_socket_has_the_same_rules(tmp_path):
    async with Desk(tmp_path, Address(path=str(tmp_path / "admin.sock"))).running() as desk:
        assert (await desk.ask("GET /v1/status"))[0] == 200
        assert (await desk.ask("POST /v1/reload", *JSON, body=b"{}"))[0] == 403
    async with Desk(tmp_path, Address(path=str(tmp_path / "admin.sock")), token=Secret(TOKEN)).running() as desk:
        assert [(await desk.ask("GET /", "Authorization: Bearer x"))[0] for _ in range(11)] == [401] * 10 + [429]
