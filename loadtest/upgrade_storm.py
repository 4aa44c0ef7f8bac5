"""Everything at once through lbproxy while it replaces itself again and again, to another version and back.

The clients of the storm: keep-alive and fresh connections, uploads, downloads, event streams, TCP sessions, WebSockets,
half of them pushed to with numbered messages, every 5 ms or 10,000 a second. Nothing may be lost, nothing doubled,
nobody closed or refused, and no backend restarted.

python loadtest/upgrade_storm.py --upgrades 20 --clients 8 --websockets 1000
"""

import json
import os
import shutil
import tempfile
from argparse import Namespace
from dataclasses import dataclass, field
from pathlib import Path

import trio

import rig
from rig import Serving, serving
from storm import CONFIG, MOST_SHOWN, Storm

from support.installed import Installed  # isort: skip (rig knows where it is)

SETTLED_S = 0.5
VERSIONS = ("9.0", "9.1")


@dataclass(slots=True)
class Upgrades:
    lb: Serving
    installed: Installed
    report: rig.Report
    took_s: list[float] = field(default_factory=list)

    async def run(self, count: int) -> None:
        for number in range(count):
            version = VERSIONS[number % 2]
            self.installed.become(version)
            began = trio.current_time()
            done = await trio.run_process(
                self.lb.command("upgrade", "--json"), capture_stdout=True, capture_stderr=True, check=False
            )
            self.took_s.append(trio.current_time() - began)
            self.report.line(f"upgrade {number + 1}", f"{self.took_s[-1]:.1f} s")
            last = json.loads(done.stdout.splitlines()[-1]) if done.stdout else {}
            right = done.returncode == 0 and last.get("version") == version
            self.report.promise(
                right, f"upgrade {number + 1}: {done.returncode}: {(done.stdout + done.stderr)[-600:]!r}"
            )
            await trio.sleep(SETTLED_S)


def backends(lb: Serving) -> list[tuple[str, int, int]]:
    return [(one["backend"], one["pid"], one["restarts"]) for one in lb.backends()]


def descriptors(lb: Serving) -> int:
    return len(os.listdir(f"/proc/{lb.pid}/fd"))


async def under_upgrades(lb: Serving, installed: Installed, options: Namespace, report: rig.Report) -> None:
    upgrades, storm = Upgrades(lb, installed, report), Storm(lb.ports, options.late, lambda: 0)
    before, pid, fds = backends(lb), lb.status()["pid"], descriptors(lb)
    async with trio.open_nursery() as clients:
        storm.start(clients, clients=options.clients, websockets=options.websockets)
        await trio.sleep(2)
        await upgrades.run(options.upgrades)
        await trio.sleep(1)
        storm.stop.set()
    span = f"{min(upgrades.took_s):.1f} to {max(upgrades.took_s):.1f} s each"
    report.line("upgrades", f"{len(upgrades.took_s)}, {span}")
    storm.tell(report)
    for _, name, outcome, detail in storm.bad[:MOST_SHOWN]:
        report.promise(False, f"{name}: {outcome} {detail}")
    report.promise(not storm.bad, f"{len(storm.bad)} exchanges or sessions were not as they should be")
    report.promise(not storm.going_away, f"{storm.going_away.total()} WebSockets were told goodbye")
    report.promise(backends(lb) == before, f"backends: {before} before, {backends(lb)} now")
    report.promise(lb.status()["pid"] == pid, "the pid has changed")
    report.promise(descriptors(lb) <= fds + 2, f"control has {descriptors(lb)} descriptors, and had {fds}")


async def main() -> None:
    options = rig.arguments(__doc__, upgrades=20, clients=8, websockets=1000, late=10.0)
    report = rig.Report("upgrade_storm")
    workers = options.workers if str(options.workers).isdigit() else f'"{options.workers}"'
    folder = Path(tempfile.mkdtemp(prefix="lbproxy-load-"))
    installed = Installed(folder / "installed")
    try:
        text = CONFIG.format(workers=workers, backends=options.backends, surge=1)
        with serving(text, folder / "run", environment=installed.environment) as lb:
            await under_upgrades(lb, installed, options, report)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    report.end()


if __name__ == "__main__":
    trio.run(main)
