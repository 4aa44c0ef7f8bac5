"""The result of a comparison: kept per slice, written as a Markdown table, an SVG chart and JSON. Knows no process."""

import json
import os
import platform
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from bars import Bar, Section, svg
from loads import Done

COLOURS = {
    "nginx": "#8a8f98",
    "haproxy": "#4c8bf5",
    "haproxy-now": "#2f5fb0",
    "caddy": "#2fb5a0",
    "caddy-now": "#1c7a6b",
    "traefik": "#7d5bd6",
    "envoy": "#b04fb8",
    "node": "#d9a441",
    "lbproxy": "#d6456b",
}
LONGEST_RATIO, LONGEST_KB = 4.0, 20.0  # in the chart


@dataclass(frozen=True, slots=True)
class Peaks:
    """The longest turn and batch of lbproxy's reactor in the last minute; README.md explains both."""

    turn_s: float
    batch_s: float

    def __str__(self) -> str:
        return f"turn {self.turn_s * 1000:.1f} ms, batch {self.batch_s * 1000:.1f} ms"


@dataclass(frozen=True, slots=True)
class Slice:
    """One proxy's turn in one round."""

    turn: int
    cpu_s: float  # of the whole process tree, per operation
    done: Done
    worker_share: float  # of the CPU: lbproxy's workers without control and guard
    spread: list[int]  # connections of each process in the middle of it; empty: not asked
    peaks: Peaks | None  # lbproxy's

    def __str__(self) -> str:
        done = self.done
        failed = f"  {done.failed} FAILED" if done.failed else ""
        worker = f" (worker {self.worker_share:.0%})" if self.worker_share < 0.995 else ""
        times = f"p50 {done.p50_s * 1000:7.2f} ms  p99 {done.p99_s * 1000:7.2f} ms"
        spread = f"  spread {self.spread}" if self.spread else ""
        peaks = f"  {self.peaks}" if self.peaks else ""
        return f"{self.cpu_s * 1e6:10.1f} µs{worker}  {done.rate:8.0f}/s  {times}{failed}{spread}{peaks}"


@dataclass(frozen=True, slots=True)
class Idle:
    bytes_each: float  # of the whole tree
    worker_bytes_each: float | None  # lbproxy's worker alone
    cpu_share: float
    connections: int  # that were still open

    def __str__(self) -> str:
        worker = f" (worker {self.worker_bytes_each:.0f})" if self.worker_bytes_each is not None else ""
        return f"{self.bytes_each:8.0f} bytes each{worker}, {self.cpu_share:.2%} CPU, {self.connections} connections"


@dataclass(slots=True)
class Result:
    versions: dict[str, str]
    scenarios: dict[str, tuple[str, str]] = field(default_factory=dict)  # name -> what it is, target
    slices: dict[str, dict[str, list[Slice]]] = field(default_factory=dict)  # scenario -> proxy -> turns
    idle: dict[str, dict[str, Idle]] = field(default_factory=dict)  # scenario -> proxy
    notes: list[str] = field(default_factory=list)

    def add_scenario(self, name: str, what: str, target: str) -> None:
        self.scenarios[name] = (what, target)
        self.slices[name], self.idle[name] = {}, {}

    def add(self, scenario: str, proxy: str, slice_: Slice) -> None:
        self.slices[scenario].setdefault(proxy, []).append(slice_)

    def note(self, text: str) -> None:
        self.notes.append(text)
        print(f"note: {text}", flush=True)

    def ratio(self, scenario: str, proxy: str) -> float | None:
        """The ratio of a proxy's CPU to nginx's in the same round; the median of the rounds."""
        of_nginx = {slice_.turn: slice_.cpu_s for slice_ in self.slices[scenario].get("nginx", ())}
        own = self.slices[scenario].get(proxy, ())
        ratios = [slice_.cpu_s / of_nginx[slice_.turn] for slice_ in own if slice_.turn in of_nginx]
        return median(ratios) if ratios else None

    def proxies(self) -> list[str]:
        seen = {proxy for of in (self.slices, self.idle) for proxies in of.values() for proxy in proxies}
        return [name for name in COLOURS if name in seen]


def write_report(result: Result, folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    texts = {"compare.md": _markdown(result), "compare.svg": _chart(result), "compare.json": _json(result)}
    for name, text in texts.items():
        (folder / name).write_text(text)
    print()
    print(texts["compare.md"])
    return [folder / name for name in texts]


def _machine() -> str:
    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return f"{os.cpu_count()} CPUs ({model}), Linux {platform.release()}"


def _markdown(result: Result) -> str:
    proxies = result.proxies()
    told = ", ".join(f"{name} {version}" for name, version in result.versions.items() if name in proxies)
    busy = [name for name in result.scenarios if result.slices[name]]
    costs = {
        f"{name}: {result.scenarios[name][0]}": [
            *(_cell(result, name, proxy) for proxy in proxies),
            f"≤ {result.scenarios[name][1]}",
        ]
        for name in busy
    }
    idle = {
        f"{name}: {what}": [*(_idle_cell(result, name, proxy) for proxy in proxies), f"≤ {target}"]
        for name, (what, target) in result.scenarios.items()
        if result.idle[name]
    }
    speeds = {name: [_speed(result, name, proxy) for proxy in proxies] for name in busy}
    spreads = {name: [_spread(result, name, proxy) for proxy in proxies] for name in busy}
    lines = [f"Measured {datetime.now(UTC):%Y-%m-%d %H:%M} UTC on {_machine()}: {told}.", ""]
    if busy:
        lines += [
            "CPU of the whole process tree per operation, and its ratio to nginx in the same round (medians).",
            "",
            *_table("load", [*proxies, "target"], costs),
            *_table("rate; p50 / p99", proxies, speeds),
        ]
    if any(any(row) for row in spreads.values()):
        lines += [
            "Connections of each process in the middle of the last turn, and the largest share of one in any turn.",
            "",
            *_table("spread", proxies, {name: row for name, row in spreads.items() if any(row)}),
        ]
    if idle:
        lines += [
            "Memory (PSS) of one idle connection, in the whole process tree and in lbproxy's worker; CPU of the tree "
            "meanwhile, of one core.",
            "",
            *_table("idle", [*proxies, "target"], idle),
        ]
    lines += _of_lbproxy(result, busy)
    lines += [f"- {note}" for note in result.notes]
    return "\n".join(lines).rstrip() + "\n"


def _table(corner: str, columns: list[str], rows: dict[str, list[str]]) -> list[str]:
    lines = [f"| {corner} | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    return [*lines, *(f"| {name} | {' | '.join(cell or '-' for cell in row)} |" for name, row in rows.items()), ""]


def _of_lbproxy(result: Result, busy: list[str]) -> list[str]:
    """Lines about lbproxy alone: the share of its workers, and its longest turns."""
    slices = {name: result.slices[name].get("lbproxy", []) for name in busy}
    shares = [one.worker_share for of in slices.values() for one in of]
    peaks = {name: [one.peaks for one in of if one.peaks is not None] for name, of in slices.items()}
    worst = {
        name: str(Peaks(max(one.turn_s for one in of), max(one.batch_s for one in of)))
        for name, of in peaks.items()
        if of
    }
    lines = []
    if shares:
        lines = [f"lbproxy's workers have {median(shares):.1%} of its tree's CPU; the rest is control and guard.", ""]
    if worst:
        lines.append("The longest that lbproxy's reactor kept its tasks waiting, and others with one batch of events:")
        lines += ["; ".join(f"{name}: {text}" for name, text in worst.items()) + ".", ""]
    return lines


def _cell(result: Result, scenario: str, proxy: str) -> str:
    slices = result.slices[scenario].get(proxy)
    if not slices:
        return ""
    ratio = result.ratio(scenario, proxy)
    cost = _time(median(slice_.cpu_s for slice_ in slices))
    return cost if ratio is None or proxy == "nginx" else f"{cost} ({ratio:.2f}x)"


def _idle_cell(result: Result, scenario: str, proxy: str) -> str:
    idle = result.idle[scenario].get(proxy)
    if idle is None:
        return ""
    worker = f" (worker {idle.worker_bytes_each:,.0f} B)" if idle.worker_bytes_each is not None else ""
    return f"{idle.bytes_each:,.0f} B{worker}; {idle.cpu_share:.2%}"


def _speed(result: Result, scenario: str, proxy: str) -> str:
    turns = [slice_.done for slice_ in result.slices[scenario].get(proxy, ())]
    if not turns:
        return ""
    p50 = median(done.p50_s for done in turns) * 1000
    p99 = median(done.p99_s for done in turns) * 1000
    failed = sum(done.failed for done in turns)
    trouble = f", {failed} failed" if failed else ""
    return f"{median(done.rate for done in turns):,.0f}/s; {p50:.2f} / {p99:.2f} ms{trouble}"


def _spread(result: Result, scenario: str, proxy: str) -> str:
    spreads = [slice_.spread for slice_ in result.slices[scenario].get(proxy, ()) if slice_.spread]
    if not spreads:
        return ""
    share = max(max(spread) / sum(spread) for spread in spreads)
    return f"{' + '.join(map(str, spreads[-1]))}; {share:.0%}"


def _time(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.1f} µs"


def _chart(result: Result) -> str:
    """CPU as a ratio to nginx, and the memory of an idle connection."""
    ratios, held = {}, {}
    for name in result.scenarios:
        known = [(proxy, result.ratio(name, proxy)) for proxy in result.proxies()]
        if bars := [Bar(proxy, ratio, f"{ratio:.2f}") for proxy, ratio in known if ratio is not None]:
            ratios[name] = bars
        if idle := result.idle.get(name):
            held[name] = [
                Bar(proxy, idle[proxy].bytes_each / 1000, f"{idle[proxy].bytes_each:,.0f} B")
                for proxy in result.proxies()
                if proxy in idle
            ]
    sections = []
    if ratios:
        sections.append(Section("CPU per operation; nginx = 1 (shorter is better)", ratios, LONGEST_RATIO, 1.0))
    if held:
        sections.append(Section("Memory of an idle connection, whole process tree", held, LONGEST_KB))
    return svg(sections, COLOURS)


def _json(result: Result) -> str:
    return json.dumps({"machine": _machine(), "at": datetime.now(UTC).isoformat(), **asdict(result)}, indent=1)
