"""CPU time that a start costs: `lbproxy serve` until it listens, and a worker until it has applied its first table.

python loadtest/start_cost.py --starts 9

The pool has one fixed target, so no backend is started. CPU is user and system time by the process's own clock, and the
median of the starts counts. Bytecode is kept for the later starts, whatever the environment says: an installed lbproxy
has it, and compiling adds a quarter. Control has started when it says `serve.started`; a worker when `status` calls it
serving, which follows its Applied.
"""

import shutil
import tempfile
from pathlib import Path
from statistics import median

import rig
from measure import Tree, cpu_s

CONFIG = """
[proxy]
workers = 1

[[listener]]
address = "127.0.0.1:$port"

[pool.web]
targets = ["127.0.0.1:$port2"]

[log]
access = "off"
"""


def one_start(bytecode: str) -> tuple[float, float]:
    """Seconds of CPU of control and of the worker."""
    folder = Path(tempfile.mkdtemp(prefix="lbproxy-start-"))
    environment = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": bytecode}
    try:
        with rig.serving(CONFIG, folder, wait=False, environment=environment) as lb:
            lb.wait_until(lambda: lb.exited() or '"serve.started"' in lb.log())
            control = cpu_s(lb.pid)
            lb.wait_until(lambda: _workers_serve(lb))
            (worker,) = Tree.of(lb.pid).worker
            return control, cpu_s(worker)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _workers_serve(lb: rig.Serving) -> bool:
    states = [worker["state"] for worker in lb.status()["workers"]]
    return states == ["serving"]


def main() -> None:
    options = rig.arguments(__doc__ or "", starts=9)
    report = rig.Report("start_cost")
    with tempfile.TemporaryDirectory(prefix="lbproxy-bytecode-") as bytecode:
        one_start(bytecode)  # compiles, and fills the page cache
        starts = [one_start(bytecode) for _ in range(options.starts)]
    for name, used in zip(
        ("serve, until it listens", "a worker, until Applied"), zip(*starts, strict=True), strict=True
    ):
        report.line(name, f"{median(used):.3f} s of CPU ({min(used):.3f} to {max(used):.3f})")
    report.end()


if __name__ == "__main__":
    main()
