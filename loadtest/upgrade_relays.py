"""Numbered traffic both ways over many TCP sessions and WebSockets through upgrades: how long the connections take to
move, and the longest pause that a client sees.

A few sessions send a number every few milliseconds, and measure the pauses; the others send one now and then.

python loadtest/upgrade_relays.py --sessions 1000 --upgrades 20
"""

import json
import sys
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import trio

import lbproxy
import rig

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.installed import Installed
from support.numbered import Numbered
from support.serve import Serving, serving

CONFIG = """
[proxy]
workers = 2

[log]
access = "off"

[[listener]]
name = "http"
address = "127.0.0.1:$port"

[[listener]]
name = "plain"
address = "127.0.0.1:$port2"
mode = "tcp"

[pool.sockets]
targets = ["127.0.0.1:NUMBERED"]
[pool.sockets.health]
active = false
"""
PROBES = 10
PROBE_S = 0.005
PACE_S = 2.0


async def one_upgrade(lb: Serving, numbered: Numbered, report: rig.Report) -> None:
    for end in numbered.clients:
        end.longest_s = 0.0
    done = await trio.run_process(lb.command("upgrade", "--json"), capture_stdout=True, check=False)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    report.promise(done.returncode == 0, f"an upgrade ended with {done.returncode}: {events[-1:]}")
    given = [event for event in events if event["event"] == "worker.gave_away"]
    moved, left = (sum(event[name] for event in given) for name in ("moved", "left"))
    took_s = max((event["duration_s"] for event in given), default=0.0)
    pause_s = max(end.longest_s for end in numbered.clients if end.pace_s == PROBE_S)
    report.line("moved", f"{moved} in {took_s:.2f} s, {left} stayed; longest pause {pause_s * 1000:.0f} ms")
    report.promise(not numbered.errors, f"sessions broke: {numbered.errors[:5]}")


async def measure(sessions: int, upgrades: int, report: rig.Report) -> None:
    numbered = Numbered(PROBE_S)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        installed = Installed(directory / "installed")
        config = CONFIG.replace("NUMBERED", str(numbered.port))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(numbered.run)
            lb = await trio.to_thread.run_sync(
                stack.enter_context, serving(config, directory / "run", environment=installed.environment)
            )
            async with trio.open_nursery() as clients:
                for number in range(sessions):
                    port = lb.ports["port2"] if number % 2 else lb.port
                    pace_s = PROBE_S if number < PROBES else PACE_S
                    clients.start_soon(partial(numbered.client, port, websocket=not number % 2, pace_s=pace_s))
                while len(numbered.clients) < sessions:  # noqa: ASYNC110
                    await trio.sleep(0.05)
                for number in range(upgrades):
                    installed.become(lbproxy.__version__ if number % 2 else "9.0")
                    await one_upgrade(lb, numbered, report)
                numbered.stop.set()
            nursery.cancel_scope.cancel()
        report.promise(not numbered.errors, f"sessions broke: {numbered.errors[:5]}")
        report.line("numbers", f"{sum(end.sent + end.heard for end in numbered.clients)}, none lost, none twice")


def main() -> None:
    options = rig.arguments("Upgrades under relays.", sessions=1000, upgrades=20)
    report = rig.Report(f"{options.sessions} sessions through {options.upgrades} upgrades")
    trio.run(measure, options.sessions, options.upgrades, report)
    report.end()


if __name__ == "__main__":
    main()
