"""wrk at a given rate: latency under a load that does not fill the machine.

wrk has no rate of its own: each connection waits a random time (exponential) before its next request.
"""

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import rig

SCRIPT = "function delay() return math.floor(-math.log(1 - math.random()) * {mean_ms}) end"


@dataclass(frozen=True, slots=True)
class Rate:
    per_s: int
    connections: int = 50


@dataclass(frozen=True, slots=True)
class Measured:
    requests: int
    errors: int
    rate: float
    p50_ms: float
    p99_ms: float

    @classmethod
    def read(cls, output: str) -> "Measured":
        sockets = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", output)
        others = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
        errors = sum(map(int, sockets.groups())) if sockets else 0
        total = re.search(r"(\d+) requests in ([\d.]+)s", output)
        if total is None:
            raise SystemExit(f"wrk did no work:\n{output}")
        return cls(
            int(total[1]),
            errors + (int(others[1]) if others else 0),
            int(total[1]) / float(total[2]),
            _milliseconds(output, "50%"),
            _milliseconds(output, "99%"),
        )

    def beyond(self, other: "Measured") -> str:
        return f"p50 {self.p50_ms - other.p50_ms:+.2f} ms, p99 {self.p99_ms - other.p99_ms:+.2f} ms"

    def __str__(self) -> str:
        return (
            f"{self.requests} requests at {self.rate:.0f}/s, {self.errors} errors, "
            f"p50 {self.p50_ms:.2f} ms, p99 {self.p99_ms:.2f} ms"
        )


def _milliseconds(output: str, share: str) -> float:
    found = re.search(rf"^\s+{share}\s+([\d.]+)(us|ms|s)$", output, re.MULTILINE)
    return float(found[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[found[2]] if found else float("nan")


async def paced(url: str, rate: Rate, seconds: int) -> Measured:
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "rate.lua"
        script.write_text(SCRIPT.format(mean_ms=1000 * rate.connections / rate.per_s))
        command = ["wrk", "-t2", f"-c{rate.connections}", f"-d{seconds}s", "--latency", "-s", str(script), url]
        return Measured.read(await rig.output_of(command))
