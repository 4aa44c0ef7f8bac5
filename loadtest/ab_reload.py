"""ab against lbproxy, a connection per request or keep-alive, with reloads in the middle: no request may fail.

python loadtest/ab_reload.py --requests 100000 --concurrency 1000 --reloads 3
"""

import re

import trio

import rig


def number(output: str, name: str) -> float:
    """The figure behind `name:` in ab's report; 0 where ab leaves the line out."""
    found = re.search(rf"^{name}:\s+([\d.]+)", output, re.MULTILINE)
    return float(found[1]) if found else 0.0


async def main() -> None:
    options = rig.arguments(__doc__, requests=100_000, concurrency=1000, reloads=3, keepalive=0)
    rig.need("ab")
    report = rig.Report("ab_reload")
    output, done = "", []
    with rig.proxied(options) as lb:
        command = ["ab", "-l", "-q", "-r", "-s", "30", "-n", str(options.requests), "-c", str(options.concurrency)]
        command += ["-k"] if options.keepalive else []

        async def load() -> None:
            nonlocal output
            output = await rig.output_of([*command, rig.url(lb, options.path)])
            finished.set()

        finished = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(load)
            done = await rig.reloads_during(lb, options.reloads, finished, first_after_s=1.0)

    complete, failed, others = (
        int(number(output, n)) for n in ("Complete requests", "Failed requests", "Non-2xx responses")
    )
    report.line("requests, concurrency", f"{complete} of {options.requests}, {options.concurrency}")
    report.line("failed, non-2xx", f"{failed}, {others}")
    report.line("requests per second", number(output, "Requests per second"))
    for share in (50, 99, 100):
        found = re.search(rf"^\s+{share}%\s+(\d+)", output, re.MULTILINE)
        report.line(f"p{share} ms", found[1] if found else "-")
    report.reloads(done, options.reloads)
    report.promise(complete == options.requests, f"ab did not finish:\n{output[-1500:]}")
    report.promise(failed == 0 and others == 0, f"{failed} failed, {others} non-2xx:\n{output[-1500:]}")
    report.end()


trio.run(main)
