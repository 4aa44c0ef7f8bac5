"""Ten backends under wrk at about 1,000 requests a second, once in peace and once while a reload runs.

Says how long the reload took, and what it did to latency and errors.

python loadtest/reload_time.py --rate 1000 --seconds 20 --backends 10
"""

import trio

import rig
from paced import Rate, paced

MOST_ADDED_MS = 50.0
MOST_ERRORS = 0.0001


async def main() -> None:
    options = rig.arguments(__doc__, seconds=20, rate=1000, connections=50, backends=10)
    rig.need("wrk")
    report = rig.Report("reload_time")
    with rig.proxied(options) as lb:
        target, rate = rig.url(lb, options.path), Rate(options.rate, options.connections)
        peace = await paced(target, rate, options.seconds)
        alone = await rig.reload(lb)  # without load: how long the next measurement must be
        reloaded: list[rig.Reloaded] = []

        async def reload_soon() -> None:
            await trio.sleep(1.0)
            reloaded.append(await rig.reload(lb))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(reload_soon)
            busy = await paced(target, rate, max(options.seconds, int(alone.took_s) + 4))

    report.line("in peace", peace)
    report.line("during a reload", busy)
    report.line(
        "reload", f"{options.backends} backends in {reloaded[0].took_s:.1f} s (without load {alone.took_s:.1f} s)"
    )
    report.line("added", busy.beyond(peace))
    report.promise(reloaded[0].ok, f"the reload ended with {reloaded[0].exit_code}: {reloaded[0].text[-600:]}")
    report.promise(busy.errors <= MOST_ERRORS * busy.requests, f"{busy.errors} errors")
    report.promise(busy.p99_ms - peace.p99_ms < MOST_ADDED_MS, f"p99 rose by more than {MOST_ADDED_MS} ms")
    report.end()


trio.run(main)
