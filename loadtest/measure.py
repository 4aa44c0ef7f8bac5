"""What lbproxy costs: CPU per request, memory, and the time of a reload. Or, with `--pid`, one look at a running one.

python loadtest/measure.py --requests 100000 --reloads 20
python loadtest/measure.py --pid 4102
"""

import contextlib
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil
import trio

import rig
from paced import Rate, paced


def cpu_s(pid: int) -> float:
    """CPU time of a process, ended threads included, exact to the nanosecond; 0 if the process is gone."""
    with contextlib.suppress(OSError):
        return time.clock_gettime(~pid << 3 | 2)  # clock_getcpuclockid(3); schedstat forgets threads that ended
    return 0.0


def pss_bytes(pid: int) -> int:
    """Proportional set size: a shared page counts by the share. 0 if the process is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


@dataclass(frozen=True, slots=True)
class Tree:
    """The processes of one lbproxy by their roles."""

    control: list[int]
    guard: list[int]
    worker: list[int]
    backend: list[int]

    @classmethod
    def of(cls, pid: int) -> "Tree":
        roles: dict[str, list[int]] = {"guard": [], "worker": [], "backend": []}
        for child in psutil.Process(pid).children():
            with contextlib.suppress(psutil.Error):
                words = child.cmdline()
                role = next((role for role in ("guard", "worker") if _runs(words, role)), "backend")
                roles[role].append(child.pid)
        return cls([pid], **roles)

    def roles(self) -> Iterable[tuple[str, list[int]]]:
        return (("control", self.control), ("guard", self.guard), ("worker", self.worker))

    def cpu_s(self) -> dict[str, float]:
        return {role: sum(map(cpu_s, pids)) for role, pids in self.roles()}

    def memory(self) -> str:
        parts = []
        for role, pids in self.roles():
            each = " ".join(f"{pss_bytes(pid) / 2**20:.1f}" for pid in pids)
            parts.append(f"{role} {each}")
        return ", ".join(parts) + " MiB PSS"


def _runs(words: list[str], role: str) -> bool:
    return {"guard": "lbproxy.supervise.guard", "worker": "lbproxy.worker"}[role] in words


async def per_request(lb: rig.Serving, connections: int, seconds: int, path: str) -> tuple[int, dict[str, float]]:
    """The number of requests, and for each role the microseconds of CPU per request."""
    tree = Tree.of(lb.pid)
    before = tree.cpu_s()
    output = await rig.output_of(["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", rig.url(lb, path)])
    after = tree.cpu_s()
    found = re.search(r"(\d+) requests in", output)
    if found is None or "Socket errors" in output or "Non-2xx" in output:
        raise SystemExit(f"wrk was not served:\n{output}")
    done = int(found[1])
    return done, {role: (after[role] - before[role]) * 1e6 / max(done, 1) for role in after}


async def main() -> None:
    options = rig.arguments(__doc__, pid=0, requests=100_000, reloads=20, seconds=8, connections=64)
    report = rig.Report("measure")
    if options.pid:
        tree = Tree.of(options.pid)
        report.line("memory", tree.memory())
        report.line("CPU so far", ", ".join(f"{role} {used:.2f} s" for role, used in tree.cpu_s().items()))
        return
    rig.need("wrk")
    rig.need("ab")
    with rig.proxied(options) as lb:
        report.line("memory at start", Tree.of(lb.pid).memory())
        for connections in (options.connections, 1):
            done, used = await per_request(lb, connections, options.seconds, options.path)
            figures = ", ".join(f"{role} {cost:.1f}" for role, cost in used.items())
            report.line(f"µs per request, {connections} conn.", f"{figures}  ({done / options.seconds:.0f}/s)")
        rate = Rate(1000)
        direct = await paced(f"http://{lb.backends()[0]['address']}{options.path}", rate, options.seconds)
        through = await paced(rig.url(lb, options.path), rate, options.seconds)
        report.line("1,000/s, straight", direct)
        report.line("1,000/s, through lbproxy", through)
        report.line(
            "added", f"p50 {through.p50_ms - direct.p50_ms:.2f} ms, p99 {through.p99_ms - direct.p99_ms:.2f} ms"
        )
        took = []
        for _ in range(options.reloads):
            done_reload = await rig.reload(lb)
            report.promise(done_reload.ok, done_reload.text[-600:])
            took.append(done_reload.took_s)
        if took:
            report.line(f"a reload of {options.backends}", f"{min(took):.1f} to {max(took):.1f} s, without load")
        await rig.output_of(
            ["ab", "-q", "-l", "-k", "-c", "64", "-n", str(options.requests), rig.url(lb, options.path)]
        )
        report.line("memory at the end", Tree.of(lb.pid).memory())
        report.line("", f"(after {options.requests} requests more and {options.reloads} reloads)")
    report.end()


if __name__ == "__main__":
    trio.run(main)
