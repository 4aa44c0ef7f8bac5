"""What a comparison found: kept per slice, told as a Markdown table, an SVG chart and JSON. Knows no process."""

import json
import os
import platform
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from statistics import median

COLOURS = {"nginx": "#8a8f98", "haproxy": "#4c8bf5", "caddy": "#2fb5a0", "node": "#d9a441", "lbproxy": "#d6456b"}
LONGEST_BAR = 4.0  # times nginx: longer bars are cut, their figure still tells


@dataclass(frozen=True, slots=True)
class Slice:
    """One proxy's turn in one round."""

    turn: int
    cpu_s: float  # per operation, whole process tree
    rate: float
    p50_s: float
    p99_s: float
    failed: int
    worker_share: float  # of the CPU: lbproxy's worker without control and guard

    def __str__(self) -> str:
        failed = f"  {self.failed} FAILED" if self.failed else ""
        worker = f" (worker {self.worker_share:.0%})" if self.worker_share < 0.995 else ""
        times = f"p50 {self.p50_s * 1000:7.2f} ms  p99 {self.p99_s * 1000:7.2f} ms"
        return f"{self.cpu_s * 1e6:10.1f} µs{worker}  {self.rate:8.0f}/s  {times}{failed}"


@dataclass(frozen=True, slots=True)
class Idle:
    bytes_each: float
    cpu_share: float
    connections: int  # that were still open

    def __str__(self) -> str:
        return f"{self.bytes_each:8.0f} bytes each, {self.cpu_share:.2%} CPU, {self.connections} connections"


@dataclass(slots=True)
class Result:
    versions: dict[str, str]
    scenarios: dict[str, tuple[str, str]] = field(default_factory=dict)  # name -> what it is, target
    slices: dict[str, dict[str, list[Slice]]] = field(default_factory=dict)  # scenario -> proxy -> turns
    idle: dict[str, Idle] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add_scenario(self, name: str, what: str, target: str) -> None:
        self.scenarios[name] = (what, target)
        self.slices[name] = {}

    def add(self, scenario: str, proxy: str, slice_: Slice) -> None:
        self.slices[scenario].setdefault(proxy, []).append(slice_)

    def note(self, text: str) -> None:
        self.notes.append(text)
        print(f"note: {text}", flush=True)

    def ratio(self, scenario: str, proxy: str) -> float | None:
        """To nginx, in the same round; the median of the rounds."""
        of_nginx = {slice_.turn: slice_.cpu_s for slice_ in self.slices[scenario].get("nginx", ())}
        own = self.slices[scenario].get(proxy, ())
        ratios = [slice_.cpu_s / of_nginx[slice_.turn] for slice_ in own if slice_.turn in of_nginx]
        return median(ratios) if ratios else None

    def proxies(self) -> list[str]:
        seen = {proxy for proxies in self.slices.values() for proxy in proxies} | set(self.idle)
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
    told = ", ".join(f"{name} {version}" for name, version in result.versions.items() if name in result.proxies())
    proxies = result.proxies()
    lines = [
        f"Measured {datetime.now(UTC):%Y-%m-%d %H:%M} UTC on {_machine()}: {told}.",
        "",
        "CPU of the whole process tree per operation, and its ratio to nginx in the same round (medians).",
        "",
        f"| load | {' | '.join(proxies)} | target |",
        f"|---|{'---|' * (len(proxies) + 1)}",
    ]
    for name, (what, target) in result.scenarios.items():
        if result.slices[name]:
            cells = " | ".join(_cell(result, name, proxy) for proxy in proxies)
            lines.append(f"| {name}: {what} | {cells} | ≤ {target} |")
    if result.idle:
        cells = " | ".join(_idle_cell(result, proxy) for proxy in proxies)
        what, target = result.scenarios["idle"]
        lines.append(f"| idle: {what}, each; CPU meanwhile | {cells} | ≤ {target} |")
    lines += ["", f"| rate; p50 / p99 | {' | '.join(proxies)} |", f"|---|{'---|' * len(proxies)}"]
    for name in result.scenarios:
        if result.slices[name]:
            lines.append(f"| {name} | {' | '.join(_speed(result, name, proxy) for proxy in proxies)} |")
    if "lbproxy" in proxies:
        shares = [one.worker_share for of in result.slices.values() for one in of.get("lbproxy", ())]
        if shares:
            lines += [
                "",
                f"lbproxy's worker has {median(shares):.1%} of its tree's CPU; the rest is control and guard.",
            ]
    lines += ["", *(f"- {note}" for note in result.notes)] if result.notes else []
    return "\n".join(lines) + "\n"


def _cell(result: Result, scenario: str, proxy: str) -> str:
    slices = result.slices[scenario].get(proxy)
    if not slices:
        return "-"
    ratio = result.ratio(scenario, proxy)
    cost = _time(median(slice_.cpu_s for slice_ in slices))
    return cost if ratio is None or proxy == "nginx" else f"{cost} ({ratio:.2f}x)"


def _idle_cell(result: Result, proxy: str) -> str:
    idle = result.idle.get(proxy)
    return "-" if idle is None else f"{idle.bytes_each:,.0f} B; {idle.cpu_share:.2%}"


def _speed(result: Result, scenario: str, proxy: str) -> str:
    slices = result.slices[scenario].get(proxy)
    if not slices:
        return "-"
    p50 = median(slice_.p50_s for slice_ in slices) * 1000
    p99 = median(slice_.p99_s for slice_ in slices) * 1000
    failed = sum(slice_.failed for slice_ in slices)
    trouble = f", {failed} failed" if failed else ""
    return f"{median(slice_.rate for slice_ in slices):,.0f}/s; {p50:.2f} / {p99:.2f} ms{trouble}"


def _time(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.1f} µs"


def _chart(result: Result) -> str:
    """One group of bars for each load, as long as the ratio to nginx."""
    bar, gap, left, unit = 13, 14, 90, 150
    proxies = result.proxies()
    rows: list[str] = []
    y = 56
    for name in result.scenarios:
        ratios = [(proxy, result.ratio(name, proxy)) for proxy in proxies]
        known = [(proxy, ratio) for proxy, ratio in ratios if ratio is not None]
        if not known:
            continue
        rows.append(
            f'<text x="{left - 8}" y="{y + bar * len(known) / 2 + 4:.0f}" text-anchor="end">{escape(name)}</text>'
        )
        for proxy, ratio in known:
            width = min(ratio, LONGEST_BAR) * unit
            colour = COLOURS[proxy]
            rows.append(f'<rect x="{left}" y="{y}" width="{width:.1f}" height="{bar - 2}" fill="{colour}"/>')
            rows.append(f'<text class="n" x="{left + width + 4:.1f}" y="{y + bar - 3}">{ratio:.2f}</text>')
            y += bar
        y += gap
    legend, x = [], left
    for proxy in proxies:
        legend.append(f'<rect x="{x}" y="30" width="10" height="10" fill="{COLOURS[proxy]}"/>')
        legend.append(f'<text x="{x + 14}" y="39">{proxy}</text>')
        x += 28 + 8 * len(proxy)
    one = left + unit
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + LONGEST_BAR * unit + 60:.0f}" height="{y}">',
            "<style>text{font:12px sans-serif;fill:#555}.n{font-size:10px}</style>",
            '<rect width="100%" height="100%" fill="#fff"/>',
            f'<text x="{left}" y="18">CPU per operation; nginx = 1 (shorter is better)</text>',
            *legend,
            *rows,
            f'<line x1="{one}" y1="48" x2="{one}" y2="{y - gap}" stroke="#333" stroke-dasharray="3 3"/>',
            "</svg>\n",
        )
    )


def _json(result: Result) -> str:
    return json.dumps({"machine": _machine(), "at": datetime.now(UTC).isoformat(), **asdict(result)}, indent=1)
