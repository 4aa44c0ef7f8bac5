"""wrk with keep-alive connections against lbproxy, with reloads in the middle: no socket error, nothing but 2xx.

python loadtest/wrk_reload.py --seconds 30 --connections 64 --reloads 3

wrk runs again until the reloads are over.
"""

import re

import trio

import rig


async def main() -> None:
    options = rig.arguments(__doc__, seconds=30, connections=64, reloads=3)
    rig.need("wrk")
    report = rig.Report("wrk_reload")
    with rig.proxied(options) as lb:
        command = ["wrk", "-t2", f"-c{options.connections}", f"-d{options.seconds}s", "--timeout", "10s", "--latency"]
        outputs, reloads = await rig.under_load(lb, [*command, rig.url(lb, options.path)], options.reloads)

    for output in outputs:
        errors = re.search(r"Socket errors: (.*)", output)
        others = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
        total = re.search(r"(\d+) requests in", output)
        latency = ", ".join(" ".join(found) for found in re.findall(r"^\s+(50%|99%)\s+(\S+)", output, re.MULTILINE))
        report.line(f"{total[1] if total else 0} requests", f"errors: {errors[1] if errors else 0}, {latency}")
        kept = total is not None and errors is None and others is None
        report.promise(kept, f"wrk reports:\n{output}")
    report.reloads(reloads)
    report.end()


trio.run(main)
