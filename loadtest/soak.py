"""Everything at once for ten minutes, a reload every ten seconds: what lbproxy holds must stay flat.

Every second: memory, descriptors and threads of control, guard and workers, the number of processes, connections and
leases. In the last third of the time there is at most a tenth more of each than in the middle one, nothing is lost,
and when the clients have gone, nothing of them is left. The curves are drawn into an SVG file.

python loadtest/soak.py --minutes 10 --every 10 --websockets 200 --plot run/soak.svg
"""

from argparse import Namespace
from pathlib import Path

import trio

import rig
from plot import svg
from samples import FDS, Samples
from storm import CONFIG, MOST_SHOWN, Storm
from trouble import Reloads

SAMPLE_EVERY_S = 1.0
EMPTY_WITHIN_S = 10.0
LEFT_OVER_FDS = 8  # idle backend connections, epolls, pipes kept for the next large body


class Soak:
    def __init__(self, lb: rig.Serving, options: Namespace, report: rig.Report) -> None:
        self.lb = lb
        self.options = options
        self.report = report
        self.reloads = Reloads(lb, report)
        self.storm = Storm(lb.ports, options.late, lambda: self.reloads.number)
        self.samples = Samples(lb)
        self.marks: list[float] = []  # when reloads began
        self.begun = trio.current_time()

    @property
    def elapsed_s(self) -> float:
        return trio.current_time() - self.begun

    async def run(self) -> None:
        fds_before = self._worker_fds(Samples(self.lb))
        lasts_s = self.options.minutes * 60
        async with trio.open_nursery() as clients:
            self.storm.start(clients, clients=self.options.clients, websockets=self.options.websockets)
            async with trio.open_nursery() as watching:
                watching.start_soon(self._sample)
                await self._reload_until(lasts_s)
                watching.cancel_scope.cancel()
            self.storm.stop.set()
        await self._left(fds_before)

    async def _reload_until(self, lasts_s: float) -> None:
        due = self.options.every / 2
        while due < lasts_s:
            await trio.sleep(max(0.0, due - self.elapsed_s))
            self.marks.append(self.elapsed_s)
            await self.reloads.once()
            due = max(due + self.options.every, self.elapsed_s + 1)
        await trio.sleep(max(0.0, lasts_s - self.elapsed_s))

    async def _sample(self) -> None:
        while True:
            await trio.to_thread.run_sync(self.samples.take, self.elapsed_s)
            await trio.sleep(SAMPLE_EVERY_S)

    async def _left(self, fds_before: float) -> None:
        """Check the end: no connection, no lease, and hardly a descriptor more than before the clients came."""
        work: dict[str, float] = {}
        with trio.move_on_after(EMPTY_WITHIN_S):
            while not work or work["connections"] or work["leases"]:
                await trio.sleep(SAMPLE_EVERY_S)
                work = Samples(self.lb).take(0)
        self.report.promise(not work["connections"] and not work["leases"], f"left behind: {work}")
        await trio.sleep(2)  # longer than idle backend connections are kept
        fds = self._worker_fds(Samples(self.lb))
        self.report.line("workers' descriptors", f"{fds_before:.0f} before, {fds:.0f} after")
        self.report.promise(fds <= fds_before + LEFT_OVER_FDS, f"descriptors: {fds_before:.0f} before, {fds:.0f} after")

    def _worker_fds(self, look: Samples) -> float:
        look.take(0)
        return look.curves[FDS]["workers"][0][1]

    def tell(self) -> None:
        self.reloads.tell()
        self.storm.tell(self.report)
        for name, figures in self.samples.figures():
            self.report.line(name, figures)
        for what in self.samples.grown():
            self.report.promise(False, f"not flat: {what}")
        for _, name, outcome, detail in self.storm.bad[:MOST_SHOWN]:
            self.report.promise(False, f"{name}: {outcome} {detail}")
        for name in self.storm.twice()[:MOST_SHOWN]:
            self.report.promise(False, f"closed twice: {name}")

    def draw(self, path: Path) -> None:
        title = (
            f"lbproxy: {self.options.minutes:g} minutes, a reload every {self.options.every:g} s ({rig.environment()})"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(svg(title, self.samples.panels(), self.marks))
        self.report.line("plot", path)


async def main() -> None:
    options = rig.arguments(
        __doc__, minutes=10.0, every=10.0, clients=4, websockets=200, late=10.0, surge="50%", plot="run/soak.svg"
    )
    report = rig.Report("soak")
    with rig.proxied(options, CONFIG) as lb:
        soak = Soak(lb, options, report)
        await soak.run()
        soak.tell()
        soak.draw(Path(options.plot))
    report.end()


if __name__ == "__main__":
    trio.run(main)
