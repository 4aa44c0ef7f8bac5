"""wrk with keep-alive connections against lbproxy, with reloads in the middle: no socket error, nothing but 2xx.

python loadtest/wrk_reload.py --seconds 30 --connections 64 --reloads 3
"""

import re

import trio

import rig


async def main() -> None:
    options = rig.arguments(__doc__, seconds=30, connections=64, reloads=3)
    rig.need("wrk")
    report = rig.Report("wrk_reload")
    output, done = "", []
    with rig.proxied(options) as lb:
        command = ["wrk", "-t2", f"-c{options.connections}", f"-d{options.seconds}s", "--timeout", "10s", "--latency"]

        async def load() -> None:
            nonlocal output
            output = await rig.output_of([*command, rig.url(lb, options.path)])
            finished.set()

        finished = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(load)
            done = await rig.reloads_during(lb, options.reloads, finished, first_after_s=1.0)

    errors = re.search(r"Socket errors: (.*)", output)
    others = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    total = re.search(r"(\d+) requests in", output)
    report.line("requests", total[1] if total else "none")
    report.line("socket errors", errors[1] if errors else 0)
    report.line("not 2xx or 3xx", others[1] if others else 0)
    for share in ("50%", "99%"):
        found = re.search(rf"^\s+{share}\s+(\S+)", output, re.MULTILINE)
        report.line(f"latency {share}", found[1] if found else "-")
    report.reloads(done, options.reloads)
    report.promise(total is not None and int(total[1]) > 0, f"wrk did no work:\n{output}")
    report.promise(errors is None and others is None, f"errors:\n{output}")
    report.end()


trio.run(main)
