"""The attacks of tests/support/http2_floods.py, one after the other, and what good clients notice of each.

python loadtest/http2_attacks.py --seconds 5 --only reset

Attackers run in processes of their own. Meanwhile a client that speaks HTTP/2 and one that speaks HTTP/1.1 ask every
few milliseconds; the worker's memory is looked at, and the backend tells how many requests it has seen.
"""

import http.client
import multiprocessing
import statistics
import sys
import tempfile
from collections import Counter
from contextlib import closing
from itertools import count
from pathlib import Path
from time import monotonic

import rig
from measure import pss_bytes
from peers import pause

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.http2_floods import ATTACKS, Outcome, run
from support.raw_http2 import connect_raw, get, headers
from support.serve import Serving, serving

CONFIG = """
[proxy]
workers = 1
[[listener]]
address = "127.0.0.1:$port"
protocols = ["http/1.1", "h2c"]
[[listener]]
address = "127.0.0.1:$port2"
protocols = ["h2c"]
[pool.web]
command = "$origin --port {port}"
[log]
access = "off"
"""
MOST_P99_MS = 100.0
MOST_GROWTH_MIB = 24.0  # 1 MiB for each connection that stands still, and what Python keeps
MOST_PER_CONNECTION = 300  # requests at the backend: 100 at a time, and 200 resets in a second
EVERY_S = 0.005


def main() -> None:
    options = rig.arguments(__doc__, seconds=3, attackers=2, only="")
    report = rig.Report("HTTP/2 attacks")
    with tempfile.TemporaryDirectory(prefix="lbproxy-load-") as folder, serving(CONFIG, Path(folder)) as lb:
        worker = next(one["pid"] for one in lb.status()["workers"])
        report.line("in peace", _spread(_latencies(lb, options.seconds)))
        for name in ATTACKS:
            if options.only in name:
                _one(lb, worker, name, (options.attackers, options.seconds), report)
        report.promise(next(one["pid"] for one in lb.status()["workers"]) == worker, "the worker has died")
        mistakes = [line for line in lb.log().splitlines() if "Traceback" in line]
        report.promise(not mistakes, "\n".join(mistakes[:3]))
    report.end()


def _one(lb: Serving, worker: int, name: str, how: tuple[int, int], report: rig.Report) -> None:
    attackers, seconds = how
    memory, requests = pss_bytes(worker), _count(lb)
    outcomes: multiprocessing.Queue[Outcome] = multiprocessing.Queue()
    processes = [
        multiprocessing.Process(target=_attack, args=(name, lb.ports["port2"], seconds, outcomes))
        for _ in range(attackers)
    ]
    for process in processes:
        process.start()
    took = _latencies(lb, seconds)
    peak = pss_bytes(worker)
    found = [outcomes.get() for _ in processes]
    for process in processes:
        process.join()
    connections = sum(one.connections for one in found)
    codes = sum((one.codes for one in found), Counter())
    seen = _count(lb) - requests - len(took) - 1
    sent = sum(one.sent_bytes for one in found) / 1e6 / seconds
    grown = (peak - memory) / 1024 / 1024
    told = ", ".join(f"{number} x {code}" for code, number in codes.items()) or "none"
    report.line(
        name[:50],
        f"{connections} connections, {sent:.2f} MB/s, ended: {told}; backend {seen}; {grown:+.1f} MiB; {_spread(took)}",
    )
    p99_ms = _p99_ms(took)
    report.promise(p99_ms < MOST_P99_MS, f"{name}: p99 of others is {p99_ms:.0f} ms")
    report.promise(grown < MOST_GROWTH_MIB, f"{name}: the worker has grown by {grown:.1f} MiB")
    most = MOST_PER_CONNECTION * connections
    report.promise(seen <= most, f"{name}: the backend saw {seen} requests of {connections} connections")
    allowed = ATTACKS[name].codes
    report.promise(not allowed or set(codes) <= allowed, f"{name}: connections ended with {dict(codes)}")


def _attack(name: str, port: int, seconds: int, outcomes: "multiprocessing.Queue[Outcome]") -> None:
    outcomes.put(run(ATTACKS[name], port, seconds))


def _count(lb: Serving) -> int:
    return int(lb.get("/count").body)


def _latencies(lb: Serving, seconds: float) -> list[float]:
    """Two clients take turns; seconds of each request."""
    took: list[float] = []
    until = monotonic() + seconds
    with closing(connect_raw(lb.port)) as second, closing(http.client.HTTPConnection("127.0.0.1", lb.port)) as first:
        for stream in count(1, 2):
            if monotonic() >= until:
                return took
            begun = monotonic()
            second.send(headers(stream, get()))
            assert second.verdict(stream).status == 200
            took.append(monotonic() - begun)
            pause(EVERY_S)
            begun = monotonic()
            first.request("GET", "/")
            assert first.getresponse().read() == b"Hello world\n"
            took.append(monotonic() - begun)
            pause(EVERY_S)
    return took


def _p99_ms(took: list[float]) -> float:
    return 1000 * statistics.quantiles(took, n=100)[98]


def _spread(took: list[float]) -> str:
    return f"others: p50 {1000 * statistics.median(took):.1f}, p99 {_p99_ms(took):.1f} ms"


if __name__ == "__main__":
    main()
