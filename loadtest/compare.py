"""lbproxy beside nginx, HAProxy, Caddy, Traefik, Envoy and Node's http-proxy: CPU per operation.

python loadtest/compare.py --rounds 5 --seconds 3 --out /tmp/compare
python loadtest/compare.py --scenario keepalive --scenario varied --proxy nginx --proxy lbproxy

Every proxy has one worker and the same origin. Proxies are pinned to one CPU, loads and origin to another; only with
two workers all of them share both. Each round gives every proxy its turn. The result is the ratio to nginx within a
round, and the median of the rounds. Writes compare.md, compare.svg and compare.json.
"""

import argparse
import contextlib
import os
import resource
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import h2_loads
import loads
import peers
from compare_report import Idle, Peaks, Result, Slice, write_report
from loads import Done, LoadFailed
from measure import cpu_s, pss_bytes
from peers import NotStarted, Running, Wiring

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.ports import free_port

IDLE_CONNECTIONS = 5000
IDLE_S = 10  # at least: what an idle proxy uses comes in small pieces
WARM_CONNECTIONS = 64
Load = Callable[[int, int], Done]  # port, seconds
Hold = Callable[[int, int], contextlib.AbstractContextManager[int]]  # port, count; gives how many are open


@dataclass(frozen=True, slots=True)
class Scenario:
    what: str
    target: str  # what issue 11 asks for, as a ratio to nginx
    load: Load
    mode: str = "http"
    workers: int = 1  # more than one: they share all CPUs with the load and the origin
    hold: Hold | None = None  # nothing happens on these connections; `load` only warms up
    logs: bool = False  # combined access logs to a file; only peers.WITH_LOGS take part


SHARED = "GET 12 B, 64 connections, 2 workers on both CPUs, which load and origin share"


VARIED = partial(loads.wrk, connections=64, script=loads.VARIED)
OVER_TLS = partial(loads.wrk, scheme="https")
SCENARIOS = {
    "keepalive": Scenario("GET 12 B, 64 connections", "1.0", partial(loads.wrk, connections=64)),
    "varied": Scenario("GET 2 KB, 13 headers, every request different", "1.15", VARIED),
    "post": Scenario("POST 1 KB of JSON", "1.1", partial(loads.wrk, connections=64, path="/post", script=loads.POST)),
    "close": Scenario("a connection per request (ab)", "1.25", partial(loads.ab, connections=32)),
    "c2000": Scenario("2,000 connections", "0.75", partial(loads.wrk, connections=2000)),
    "c1": Scenario("one connection, one at a time", "1.1", partial(loads.wrk, connections=1)),
    "addresses": Scenario("250 connections from 250 addresses", "0.7", partial(loads.addresses, connections=250)),
    "addresses2000": Scenario(
        "2,000 connections from 2,000 addresses", "0.8", partial(loads.addresses, connections=2000)
    ),
    "tcp": Scenario("TCP mode, small round trips", "1.1", partial(loads.wrk, connections=64), "tcp"),
    "tcpclose": Scenario("TCP mode, a connection each", "1.2", partial(loads.ab, connections=32), "tcp"),
    "ws": Scenario("WebSocket echo, 32 B", "1.25", partial(loads.websocket_echo, connections=64), "websocket"),
    "bulk": Scenario("100 MB download", "0.25", partial(loads.bulk, path="/files/100m")),
    "64k": Scenario("GET 64 KB, 16 connections", "0.58", partial(loads.wrk, connections=16, path="/files/64k")),
    "log": Scenario("as keepalive, with access logs", "1.1", partial(loads.wrk, connections=64), logs=True),
    "logvaried": Scenario("as varied, with access logs", "1.3", VARIED, logs=True),
    "log2000": Scenario("as c2000, with access logs", "-", partial(loads.wrk, connections=2000), logs=True),
    "workers2": Scenario(SHARED, "1.3", partial(loads.wrk, connections=64), workers=2),
    "idle": Scenario(
        f"{IDLE_CONNECTIONS:,} idle keep-alive connections",
        "2,500 B, < 0.5 %",
        partial(loads.wrk, connections=WARM_CONNECTIONS),
        hold=loads.idle_connections,
    ),
    "tls": Scenario("as keepalive, over TLS 1.3, P-256", "1.2", partial(OVER_TLS, connections=64), "tls"),
    "tls64k": Scenario("as 64k, over TLS", "1.0", partial(OVER_TLS, connections=16, path="/files/64k"), "tls"),
    "tlsclose": Scenario(
        "a TLS connection per request, full handshakes (ab)",
        "1.15",
        partial(loads.ab, connections=32, scheme="https"),
        "tls",
    ),
    "idletls": Scenario(
        f"{IDLE_CONNECTIONS:,} idle TLS connections",
        "nginx's",
        partial(OVER_TLS, connections=WARM_CONNECTIONS),
        "tls",
        hold=loads.idle_tls,
    ),
    "h2": Scenario(
        "GET 12 B over HTTP/2 and TLS, 16 connections x 10 streams",
        "2.5",
        partial(h2_loads.h2load, connections=16, streams=10),
        "h2",
    ),
    "h2bulk": Scenario(
        "100 MB download over HTTP/2 and TLS", "1.5", partial(h2_loads.h2_bulk, path="/files/100m"), "h2"
    ),
    "grpc": Scenario(
        "gRPC unary calls, 16 connections x 10 streams",
        "3",
        partial(h2_loads.grpc_calls, connections=16, streams=10),
        "grpc",
    ),
    "grpcio": Scenario(
        "gRPC unary calls of one grpcio channel, 4 at a time", "-", partial(h2_loads.grpcio_calls, threads=4), "grpc"
    ),
    "idleh2": Scenario(
        f"{IDLE_CONNECTIONS:,} idle HTTP/2 connections over TLS",
        "1.5 x nginx's",
        partial(h2_loads.h2load, connections=WARM_CONNECTIONS, streams=1),
        "h2",
        hold=h2_loads.idle_h2,
    ),
    "idlews": Scenario(
        f"{IDLE_CONNECTIONS:,} idle WebSockets",
        "4,096 B (worker)",
        partial(loads.websocket_echo, connections=WARM_CONNECTIONS),
        "websocket",
        hold=loads.idle_websockets,
    ),
}


@dataclass(frozen=True, slots=True)
class Cpus:
    """The CPUs of each side."""

    proxies: Sequence[int]
    loads: Sequence[int]  # and the origin

    @classmethod
    def of(cls, scenario: Scenario) -> "Cpus":
        first, second, *_ = ALL_CPUS
        return cls((second,), (first,)) if scenario.workers == 1 else cls((first, second), (first, second))


ALL_CPUS = sorted(os.sched_getaffinity(0))


def main() -> None:
    options = _options()
    if len(ALL_CPUS) < 2:
        sys.exit("two CPUs are needed: one for the proxy, one for loads and origin")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    result = Result(peers.versions())
    for name in options.scenario:
        scenario = SCENARIOS[name]
        result.add_scenario(name, scenario.what, scenario.target)
        try:
            with _stage(name, scenario, options.proxy, result) as stage:
                if scenario.hold is None:
                    _measure(name, scenario, stage, options, result)
                else:
                    _measure_idle(name, scenario.hold, stage, max(options.seconds, IDLE_S), result)
        except NotStarted as exc:
            result.note(f"{name}: {exc}")
    for path in write_report(result, options.out):
        print(f"written: {path}")


def _measure(name: str, scenario: Scenario, stage: list[Running], options: argparse.Namespace, result: Result) -> None:
    for turn in range(options.rounds):
        for running in stage:
            try:
                slice_ = _turn(running, scenario, turn, options.seconds)
            except LoadFailed as exc:
                result.note(f"{name}: {running.name}: {exc}")
                continue
            result.add(name, running.name, slice_)
            print(f"{name:<10} {turn + 1} {running.name:<8} {slice_}", flush=True)


def _turn(running: Running, scenario: Scenario, turn: int, seconds: int) -> Slice:
    """Raises LoadFailed."""
    workers = running.worker_pids()
    before, workers_before = running.cpu_s(), sum(map(cpu_s, workers))
    with _in_the_middle(seconds, running.spread if scenario.workers > 1 else list) as spread:
        done = scenario.load(running.port, seconds)
    used = running.cpu_s() - before
    share = (sum(map(cpu_s, workers)) - workers_before) / used if workers and used else 1.0
    peaks = Peaks(*running.longest_s()) if workers else None
    return Slice(turn, used / done.operations, done, share, spread[0] if spread else [], peaks)


@contextlib.contextmanager
def _in_the_middle(seconds: float, look: Callable[[], list[int]]) -> Iterator[list[list[int]]]:
    """The result of `look` when half of the time was over."""
    seen: list[list[int]] = []
    timer = threading.Timer(seconds / 2, lambda: seen.append(look()))
    timer.start()
    try:
        yield seen
    finally:
        timer.join()


def _measure_idle(name: str, hold: Hold, stage: list[Running], seconds: int, result: Result) -> None:
    for running in stage:
        try:
            peers.pause(1.5)  # connections to the origin have gone
            workers = running.worker_pids()
            before, workers_before = running.memory_bytes(), sum(map(pss_bytes, workers))
            with hold(running.port, IDLE_CONNECTIONS) as count:
                peers.pause(2.5)
                grown = running.memory_bytes() - before
                of_workers = sum(map(pss_bytes, workers)) - workers_before
                cpu_before = running.cpu_s()
                peers.pause(seconds)
                share = (running.cpu_s() - cpu_before) / seconds
        except (LoadFailed, OSError) as exc:
            result.note(f"{name}: {running.name}: {exc}")
            continue
        each = max(count, 1)
        idle = Idle(grown / each, of_workers / each if workers else None, share, count)
        result.idle[name][running.name] = idle
        print(f"{name:<12} {running.name:<8} {idle}", flush=True)


@contextlib.contextmanager
def _stage(name: str, scenario: Scenario, proxies: list[str], result: Result) -> Iterator[list[Running]]:
    """An origin, and fresh proxies in front of it, warmed up. A proxy that cannot do this scenario is left out."""
    cpus = Cpus.of(scenario)
    os.sched_setaffinity(0, cpus.loads)
    folder = Path(tempfile.mkdtemp(prefix="lbproxy-compare-"))
    origin_at = {"websocket": peers.websocket_origin, "grpc": peers.grpc_origin}.get(scenario.mode, peers.http_origin)
    try:
        with contextlib.ExitStack() as stack:
            origin = stack.enter_context(origin_at(Wiring(folder, free_port(), 0), cpus.loads))
            stage = []
            for proxy in proxies:
                if (scenario.logs and proxy not in peers.WITH_LOGS) or (
                    scenario.mode in ("tls", "h2", "grpc") and proxy not in peers.WITH_TLS
                ):
                    continue
                place = folder / proxy
                place.mkdir()
                wiring = Wiring(place, free_port(), origin.port, scenario.mode, scenario.workers, scenario.logs)
                try:
                    command = peers.PROXIES[proxy](wiring)
                    running = stack.enter_context(peers.started(proxy, command, wiring, cpus.proxies))
                    _warm_up(running, scenario.load)
                    stage.append(running)
                except (NotStarted, LoadFailed) as exc:
                    result.note(f"{name}: {proxy}: {exc}")
            yield stage
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _warm_up(running: Running, load: Load) -> None:
    """A first load, for code paths, connections and JITs. Raises LoadFailed if the proxy does not serve this load."""
    try:
        load(running.port, 1)
    except LoadFailed:  # Traefik listens before it has routes; on a busy machine a second can pass with nothing done
        peers.pause(1)
        load(running.port, 1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", action="append", choices=SCENARIOS, help="may be repeated; default: all")
    parser.add_argument("--proxy", action="append", choices=peers.PROXIES, help="may be repeated; default: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="of load, for each proxy in each round")
    parser.add_argument("--out", type=Path, default=Path("/tmp/lbproxy-compare"), help="a directory for the report")
    options = parser.parse_args()
    options.scenario = options.scenario or list(SCENARIOS)
    options.proxy = options.proxy or list(peers.PROXIES)
    for program in ("wrk", "ab", "nginx"):
        if shutil.which(program) is None:
            sys.exit(f"{program} is not on PATH (Debian: wrk, apache2-utils, nginx)")
    return options


if __name__ == "__main__":
    main()
