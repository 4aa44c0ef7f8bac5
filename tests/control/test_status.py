"""The status document, as CONTRACT.md 3 has it."""

import os
from dataclasses import replace
from pathlib import Path

import trio
from support.certificates import certificate
from support.trio_test import trio_test

from control.fakes import Behaviour, World, pool_settings, settings_of
from lbproxy.address import Address
from lbproxy.control import status
from lbproxy.control.scrape import samples
from lbproxy.control.worker_process import WorkerStatus
from lbproxy.link.grid import Counter
from lbproxy.link.messages import Exchanges, Increase, Stats
from lbproxy.settings import CertificateFiles, DrainSettings, RouteSettings, TlsSettings
from lbproxy.supervise.usage import Usage


@trio_test(clock="autojump")
async def test_the_document_says_what_runs():
    async with World(settings_of(pool_settings(size=2))).running() as world:
        await trio.sleep(8)
        world.count("web.1@1", Counter.REQUEST)
        world.count("web.1@1", Counter.WEBSOCKET, 2)
        world.count("web.1@1", Counter.REQUESTS, 31)
        worker = WorkerStatus(
            1, 4103, "serving", Stats(5, 12, 900, {"upgrade": 2}, 0.00412345678, 0.0025, {"idle": 9, "away": 3})
        )
        document = status.document(world.context, world.grid, [worker], trio.current_time() - 12.5)
        web = document["pools"]["web"]
        first, second = web.pop("backends")
        assert first == {
            "id": "web.1",
            "backend": "web.1@1",
            "generation": 1,
            "state": "ready",
            "pid": world.member("web.1@1").backend.pid,
            "address": str(world.member("web.1@1").backend.address),
            "uptime_s": 9.0,
            "restarts": 0,
            "recycled": 0,
            "in_flight": 3,
            "leases": {"request": 1, "websocket": 2},
            "requests_total": 31,
            "directory": "/app",
            "cpu": None,
            "resident_memory_bytes": None,
        }
        assert second["leases"] == {}
        assert web == {
            "generation": 1,
            "size": 2,
            "ready": 2,
            "reloading": False,
            "drained": 0,
            "paused": None,
            "reload": None,
            "differs_from_file": [],
            "sticky": None,
            "requests_total": 31,
            "requests_per_s": 0.0,
            "p50_s": None,
            "p99_s": None,
        }
        assert document["version"] == 1
        assert document["name"] == "edge"
        assert document["pid"] == os.getpid()
        assert document["uptime_s"] == 12.5
        assert document["config"]["path"] == "lb.toml"
        assert document["config"]["loaded_at"].endswith("Z")
        assert document["workers"] == [
            {
                "id": 1,
                "pid": 4103,
                "state": "serving",
                "is_old": False,
                "connections": 12,
                "express": {
                    "served": 900,
                    "phases": {"idle": 9, "away": 3},
                    "handed_over": {"upgrade": 2},
                    "longest_turn_s": 0.004123,
                    "longest_batch_s": 0.0025,
                },
            }
        ]
        listener = document["listeners"][0]
        assert (listener["name"], listener["address"], listener["mode"]) == ("127.0.0.1:80", "127.0.0.1:80", "http")
        assert document["degraded"] is False
        assert document["routes"] == []


@trio_test(clock="autojump")
async def test_a_tls_listener_has_its_certificates(tmp_path: Path):
    pair = certificate(tmp_path, "a.example")
    settings = settings_of(pool_settings(), listeners=[":80", ":443"])
    tls = TlsSettings(certs=(CertificateFiles(str(pair.cert), str(pair.key)),))
    secured = replace(settings, listeners=(settings.listeners[0], replace(settings.listeners[1], tls=tls)))
    world = World(secured)
    world.context.certificates.adopt(secured)
    plain, listener = status.document(world.context, world.grid, [], 0.0)["listeners"]
    assert "certificates" not in plain
    (found,) = listener["certificates"]
    assert found.pop("not_after").startswith("20")
    assert set(found) == {"names", "days_left", "file", "issuer", "serial"}
    made = samples(world.context, world.grid, [])["tls_certificate_not_after_timestamp_seconds"]
    assert [labels for labels, _ in made] == [(":443", "a.example")]


@trio_test(clock="autojump")
async def test_a_draining_backend_says_how_long_what_it_has_may_still_take():
    drain = DrainSettings(websocket_s=8, goodbye_s=4, stream_s=10, request_s=60)
    async with World(settings_of(pool_settings(size=2, drain=drain))).running() as world:
        world.member("web.1@1").runner.drain()
        world.count("web.1@1", Counter.WEBSOCKET, 2)
        world.count("web.1@1", Counter.STREAM)
        await trio.sleep(3)

        def left_s() -> float:
            document = status.document(world.context, world.grid, [], 0.0)
            first, second = document["pools"]["web"]["backends"]
            assert first["state"] == "draining"
            assert "drain_left_s" not in second
            return first["drain_left_s"]

        assert left_s() == 9.0
        await trio.sleep(10)
        assert left_s() == 0.0


@trio_test(clock="autojump")
async def test_a_dead_backend_makes_it_degraded_and_has_no_pid():
    async with World(settings_of(pool_settings(size=2))).running() as world:
        world.member("web.2@1").runner.die()
        document = status.document(world.context, world.grid, [], 0.0)
        dead = document["pools"]["web"]["backends"][1]
        assert document["degraded"] is True
        assert (dead["state"], dead["pid"], dead["uptime_s"]) == ("backoff", None, None)


@trio_test(clock="autojump")
async def test_routes_directory_and_the_reason_of_a_backend_that_does_not_serve_are_told():
    routes = (RouteSettings("web", "example.com", "/v1/"),)
    fixed = pool_settings("old", size=1, command=None, targets=(Address("127.0.0.1", 9),))
    settings = settings_of(pool_settings(size=2), fixed)
    async with World(replace(settings, routes=routes), lambda spec: Behaviour(ready_after_s=2)).running() as world:
        world.member("web.2@1").runner.fall()
        document = status.document(world.context, world.grid, [], 0.0)
        assert document["routes"] == [{"host": "example.com", "path": "/v1/", "pool": "web"}]
        ready, unhealthy = document["pools"]["web"]["backends"]
        assert "why" not in ready
        assert unhealthy["why"] == "not probed yet"
        assert document["pools"]["old"]["backends"][0]["directory"] is None


@trio_test(clock="autojump")
async def test_figures_are_those_of_the_last_seconds():
    async with World(settings_of(pool_settings(size=1))).running() as world:
        measured, pid = world.context.measured, world.member("web.1@1").backend.pid
        exchanges = Exchanges("web", "GET", 200, (99, 0, 0, 0, 1, *(0,) * 9), 0.1, 0, 0)
        measured.tallies.add(Stats(0, 0, 0, {}), Stats(1, 0, 0, {}, increase=Increase((exchanges,))))
        measured.usage.take([(("web", "web.1"), pid)], {pid: Usage(1.0, 4096)})
        await trio.sleep(4)
        measured.usage.take([(("web", "web.1"), pid)], {pid: Usage(2.0, 8192)})
        web = status.document(world.context, world.grid, [], 0.0)["pools"]["web"]
        assert (web["requests_per_s"], web["p50_s"], web["p99_s"]) == (25.0, 0.000505, 0.001)
        assert (web["backends"][0]["cpu"], web["backends"][0]["resident_memory_bytes"]) == (0.25, 8192)
