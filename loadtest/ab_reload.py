"""ab against lbproxy, a connection per request or keep-alive, with reloads in the middle: no request may fail.

python loadtest/ab_reload.py --requests 100000 --concurrency 1000 --reloads 3

ab runs again until the reloads are over.
"""

import re

import trio

import rig


def number(output: str, name: str) -> float:
    """The figure after `name:` in ab's report; 0 if ab leaves the line out."""
    found = re.search(rf"^{name}:\s+([\d.]+)", output, re.MULTILINE)
    return float(found[1]) if found else 0.0


def percentile(output: str, share: int) -> str:
    found = re.search(rf"^\s+{share}%\s+(\d+)", output, re.MULTILINE)
    return f"p{share} {found[1] if found else '-'} ms"


async def main() -> None:
    options = rig.arguments(__doc__, requests=100_000, concurrency=1000, reloads=3, keepalive=0)
    rig.need("ab")
    report = rig.Report("ab_reload")
    with rig.proxied(options) as lb:
        command = ["ab", "-l", "-q", "-r", "-s", "30", "-n", str(options.requests), "-c", str(options.concurrency)]
        command += ["-k"] if options.keepalive else []
        outputs, reloads = await rig.under_load(lb, [*command, rig.url(lb, options.path)], options.reloads)

    report.line("concurrency", options.concurrency)
    for output in outputs:
        complete, failed = int(number(output, "Complete requests")), int(number(output, "Failed requests"))
        others = int(number(output, "Non-2xx responses"))
        latency = ", ".join(percentile(output, share) for share in (50, 99, 100))
        rate = number(output, "Requests per second")
        report.line(f"{complete} requests", f"{failed} failed, {others} non-2xx, {rate:.0f}/s, {latency}")
        kept = complete == options.requests and failed == 0 and others == 0
        report.promise(kept, f"{complete} of {options.requests}, {failed} failed, {others} non-2xx:\n{output[-1500:]}")
    report.reloads(reloads)
    report.end()


trio.run(main)
