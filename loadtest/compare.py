"""lbproxy beside nginx, HAProxy, Caddy and Node's http-proxy: CPU per operation, one worker each, on the same origin.

python loadtest/compare.py --rounds 5 --seconds 3 --out /tmp/compare
python loadtest/compare.py --scenario keepalive --scenario varied --proxy nginx --proxy lbproxy

Every proxy is pinned to one CPU, loads and origin to another one. Each round gives every proxy its turn; what counts is
the ratio to nginx within a round, and of those the median. Writes compare.md, compare.svg and compare.json.
"""

import argparse
import contextlib
import os
import resource
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import loads
import peers
from compare_report import Idle, Result, Slice, write_report
from loads import Done, LoadFailed
from measure import cpu_s
from peers import NotStarted, Running, Wiring

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.ports import free_port

IDLE_CONNECTIONS = 5000
Load = Callable[[int, int], Done]  # port, seconds


@dataclass(frozen=True, slots=True)
class Scenario:
    what: str
    target: str  # what issue 4 asks for, as a ratio to nginx
    load: Load | None  # None: idle
    mode: str = "http"


SCENARIOS = {
    "keepalive": Scenario("GET 12 B, 64 connections", "1.3", partial(loads.wrk, connections=64)),
    "varied": Scenario(
        "GET 2 KB, 13 headers, every request different",
        "1.5",
        partial(loads.wrk, connections=64, script=loads.VARIED),
    ),
    "post": Scenario("POST 1 KB of JSON", "1.3", partial(loads.wrk, connections=64, path="/post", script=loads.POST)),
    "close": Scenario("a connection per request (ab)", "1.5", partial(loads.ab, connections=32)),
    "c2000": Scenario("2,000 connections", "0.8", partial(loads.wrk, connections=2000)),
    "c1": Scenario("one connection, one at a time", "1.4", partial(loads.wrk, connections=1)),
    "tcp": Scenario("TCP mode, small round trips", "1.3", partial(loads.wrk, connections=64), "tcp"),
    "tcpclose": Scenario("TCP mode, a connection each", "1.5", partial(loads.ab, connections=32), "tcp"),
    "ws": Scenario("WebSocket echo, 32 B", "1.4", partial(loads.websocket_echo, connections=64), "websocket"),
    "bulk": Scenario("100 MB download", "0.5", partial(loads.bulk, path="/files/100m")),
    "64k": Scenario("GET 64 KB, 16 connections", "1.0", partial(loads.wrk, connections=16, path="/files/64k")),
    "idle": Scenario(f"{IDLE_CONNECTIONS:,} idle connections", "2500 bytes", None),
}


def main() -> None:
    options = _options()
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        sys.exit("two CPUs are needed: one for the proxy, one for loads and origin")
    proxy_cpu, load_cpu = cpus[1], cpus[0]
    os.sched_setaffinity(0, {load_cpu})
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    result = Result(peers.versions())
    for name in options.scenario:
        scenario = SCENARIOS[name]
        result.add_scenario(name, scenario.what, scenario.target)
        try:
            with _stage(scenario, options.proxy, proxy_cpu, load_cpu, result, name) as stage:
                if scenario.load is None:
                    _measure_idle(stage, options.seconds, result)
                else:
                    _measure(name, scenario.load, stage, options, result)
        except NotStarted as exc:
            result.note(f"{name}: {exc}")
    for path in write_report(result, options.out):
        print(f"written: {path}")


def _measure(name: str, load: Load, stage: list[Running], options: argparse.Namespace, result: Result) -> None:
    taking_part = []
    for running in stage:  # code paths, connections and the JITs of others get warm
        trouble = ""
        for _ in range(2):  # on a busy machine a second can pass with nothing done
            try:
                load(running.port, 1)
                taking_part.append(running)
                break
            except LoadFailed as exc:
                trouble = str(exc)
        else:
            result.note(f"{name}: {running.name}: {trouble}")
    for turn in range(options.rounds):
        for running in taking_part:
            worker = running.worker_pid()
            before, worker_before = running.cpu_s(), cpu_s(worker) if worker else 0.0
            try:
                done = load(running.port, options.seconds)
            except LoadFailed as exc:
                result.note(f"{name}: {running.name}: {exc}")
                continue
            used = running.cpu_s() - before
            share = (cpu_s(worker) - worker_before) / used if worker and used else 1.0
            slice_ = Slice(turn, used / done.operations, done.rate, done.p50_s, done.p99_s, done.failed, share)
            result.add(name, running.name, slice_)
            print(f"{name:<10} {turn + 1} {running.name:<8} {slice_}", flush=True)


def _measure_idle(stage: list[Running], seconds: int, result: Result) -> None:
    for running in stage:
        try:
            loads.wrk(running.port, 1, connections=64)
            peers.pause(1.5)  # connections to the origin have gone
            before = running.memory_bytes()
            with loads.idle_connections(running.port, IDLE_CONNECTIONS) as count:
                peers.pause(2.5)
                grown = running.memory_bytes() - before
                cpu_before = running.cpu_s()
                peers.pause(seconds)
                share = (running.cpu_s() - cpu_before) / seconds
        except (LoadFailed, OSError) as exc:
            result.note(f"idle: {running.name}: {exc}")
            continue
        idle = Idle(grown / max(count, 1), share, count)
        result.idle[running.name] = idle
        print(f"idle         {running.name:<8} {idle}", flush=True)


@contextlib.contextmanager
def _stage(
    scenario: Scenario, proxies: list[str], proxy_cpu: int, load_cpu: int, result: Result, name: str
) -> Iterator[list[Running]]:
    """An origin, and fresh proxies in front of it: those that can do this scenario."""
    folder = Path(tempfile.mkdtemp(prefix="lbproxy-compare-"))
    origin_at = peers.websocket_origin if scenario.mode == "websocket" else peers.http_origin
    try:
        with contextlib.ExitStack() as stack:
            origin = stack.enter_context(origin_at(Wiring(folder, free_port(), 0), load_cpu))
            stage = []
            for proxy in proxies:
                place = folder / proxy
                place.mkdir()
                wiring = Wiring(place, free_port(), origin.port, scenario.mode)
                try:
                    command = peers.PROXIES[proxy](wiring)
                    stage.append(stack.enter_context(peers.started(proxy, command, wiring, proxy_cpu)))
                except NotStarted as exc:
                    result.note(f"{name}: {proxy}: {exc}")
            yield stage
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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
