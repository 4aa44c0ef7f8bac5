"""A scrape has every family of CONTRACT.md 5 from the beginning, and is quick where there is much."""

import re
from time import process_time

import trio
from support.trio_test import trio_test

from control.fakes import Behaviour, World, pool_settings, settings_of
from lbproxy.control.scrape import owners, samples
from lbproxy.control.worker_process import WorkerStatus
from lbproxy.link.grid import Counter
from lbproxy.link.messages import Exchanges, Increase, Stats
from lbproxy.telemetry.events import BackendExited
from lbproxy.telemetry.metrics import FAMILIES, key_of, render

# CONTRACT.md 5, without cluster; and backend_ejections_total.
CONTRACT = """
http_requests_total{pool,method,code} http_request_duration_seconds{pool} http_requests_in_flight{pool}
http_request_bytes_total{pool} http_response_bytes_total{pool} connections{listener} connections_total{listener}
backends{pool,state} backend_up{pool,backend} backend_requests_total{pool,backend}
backend_requests_in_flight{pool,backend} backend_restarts_total{pool,reason} backend_start_seconds{pool}
backend_cpu_seconds_total{pool,backend} backend_resident_memory_bytes{pool,backend} probes_total{pool,result}
retries_total{pool,reason} backend_errors_total{pool,error} queue_requests{pool} queue_wait_seconds{pool}
websockets{pool} websocket_closes_total{pool,code,by} reloads_total{pool,result} reload_in_progress{}
reload_duration_seconds{pool,result} generation{pool} drain_cut_total{pool,kind} express_total{result}
http2_streams{listener} http2_resets_total{listener,why}
tls_handshakes_total{listener,result,version} tls_certificate_not_after_timestamp_seconds{listener,name}
config_last_reload_successful{} worker_cpu_seconds_total{worker} worker_resident_memory_bytes{worker}
build_info{version,python} backend_ejections_total{pool}
"""
WORKER = WorkerStatus(1, 4711, "serving", Stats(0, 0, 0, {}, queued={"web": 3}))


def test_the_families_are_those_of_the_contract() -> None:
    wanted = {name: tuple(filter(None, labels.split(","))) for name, labels in re.findall(r"(\w+)\{(.*?)\}", CONTRACT)}
    assert {key_of(family): family.labels for family in FAMILIES} == wanted


@trio_test(clock="autojump")
async def test_every_family_has_samples_before_anything_has_happened() -> None:
    async with World(settings_of(pool_settings(size=2))).running() as world:
        made = {key: list(values) for key, values in samples(world.context, world.grid, [WORKER]).items()}
        assert set(made) == {key_of(family) for family in FAMILIES}
        without_tls = {"tls_handshakes_total", "tls_certificate_not_after_timestamp_seconds"}
        without_http2 = {"http2_streams", "http2_resets_total"}
        assert {key for key, values in made.items() if not values} == without_tls | without_http2
        labels = {key_of(family): family.labels for family in FAMILIES}
        assert all(len(values) == len(labels[key]) for key, rows in made.items() for values, _ in rows)
        assert (("web", "GET", "503"), 0) in made["http_requests_total"]
        assert made["queue_requests"] == [(("web",), 3)]
        assert made["backend_up"] == [(("web", "web.1"), 1), (("web", "web.2"), 1)]
        assert (("web", "ready"), 2) in made["backends"]
        assert (("web", "failed"), 0) in made["backends"]


@trio_test(clock="autojump")
async def test_leases_show_as_what_they_are() -> None:
    async with World(settings_of(pool_settings(size=1))).running() as world:
        world.count("web.1@1", Counter.REQUEST)
        world.count("web.1@1", Counter.STREAM, 2)
        world.count("web.1@1", Counter.WEBSOCKET, 4)
        world.count("web.1@1", Counter.TCP, 8)
        made = samples(world.context, world.grid, [])
        assert list(made["http_requests_in_flight"]) == [(("web",), 3)]
        assert list(made["websockets"]) == [(("web",), 4)]
        assert list(made["backend_requests_in_flight"]) == [(("web", "web.1"), 15)]


@trio_test(clock="autojump")
async def test_the_requests_of_a_slot_outlive_its_backend() -> None:
    async with World(settings_of(pool_settings(size=1)), lambda spec: Behaviour(ready_after_s=0.1)).running() as world:

        def requests() -> float:
            ((_, value),) = samples(world.context, world.grid, [])["backend_requests_total"]
            assert isinstance(value, int)
            return value

        world.count("web.1@1", Counter.REQUESTS, 5)
        assert requests() == 5
        pool, old = world.fleet.pools["web"], world.member("web.1@1")
        old.published = False
        world.fleet.publish()
        await old.runner.stop()
        await old.gone.wait()
        await trio.sleep(1)
        spec = old.spec
        world.fleet.start_member(pool, spec).published = True
        await trio.sleep(1)
        assert requests() == 5
        world.count("web.1@1", Counter.REQUESTS, 2)
        assert requests() == 7


@trio_test(clock="autojump")
async def test_what_was_counted_shows() -> None:
    async with World(settings_of(pool_settings(size=1))).running() as world:
        measured = world.context.measured
        increase = Increase((Exchanges("web", "GET", 418, (0, 2, *(0,) * 12), 0.004, 1, 2),))
        measured.tallies.add(Stats(0, 0, 0, {}), Stats(1, 0, 0, {"upgrade": 3}, increase=increase))
        measured.events.take(BackendExited("web", "web.1@1", 7, "exit code 1", 0.5, ()))
        lines = render(samples(world.context, world.grid, [WORKER]), "")[0].decode().splitlines()
        for line in (
            'lbproxy_http_requests_total{code="418",method="GET",pool="web"} 2.0',
            'lbproxy_http_request_duration_seconds_bucket{le="0.001",pool="web"} 0.0',
            'lbproxy_http_request_duration_seconds_bucket{le="0.0025",pool="web"} 2.0',
            'lbproxy_http_request_duration_seconds_sum{pool="web"} 0.004',
            'lbproxy_express_total{result="upgrade"} 3.0',
            'lbproxy_backend_restarts_total{pool="web",reason="crash"} 1.0',
            "lbproxy_reload_in_progress 0.0",
            "lbproxy_config_last_reload_successful 1.0",
        ):
            assert line in lines


@trio_test(clock="autojump")
async def test_backends_and_workers_own_processes() -> None:
    async with World(settings_of(pool_settings(size=2))).running() as world:
        world.workers.known = lambda: [WORKER]
        pids = [world.member(name).backend.pid for name in ("web.1@1", "web.2@1")]
        assert list(owners(world.context)) == [(("web", "web.1"), pids[0]), (("web", "web.2"), pids[1]), ("1", 4711)]


@trio_test(clock="autojump")
async def test_fifty_pools_with_five_hundred_backends_take_less_than_a_tenth_of_a_second() -> None:
    pools = [pool_settings(f"pool-{number}", size=10) for number in range(50)]
    async with World(settings_of(*pools), cells=1024).running() as world:
        render(samples(world.context, world.grid, [WORKER]), "")  # imports prometheus_client
        took_s = []
        for _ in range(5):
            began = process_time()
            body, _ = render(samples(world.context, world.grid, [WORKER]), "")
            took_s.append(process_time() - began)
        assert min(took_s) < 0.1, f"{len(body.splitlines())} lines"  # 10,000 in 43 ms where nothing else runs
