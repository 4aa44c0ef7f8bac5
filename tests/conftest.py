"""Rules of the whole suite: deterministic Hypothesis, the order of the tests, and tests that need a peer program."""

import contextlib
import os
import shutil
import signal
import sys
from itertools import groupby

import pytest
from hypothesis import settings

# Hypothesis tries constants that it finds in our modules, those which this process has imported so far: each process of
# pytest-xdist would try others, in each run. Reading all modules for them costs half a second, too.
with contextlib.suppress(ImportError):  # an older version
    from hypothesis.internal.conjecture import providers

    providers._get_local_constants = lambda: providers._local_constants

settings.register_profile("lbproxy", derandomize=True, deadline=None, database=None)
settings.load_profile("lbproxy")

# Where the environment forbids bytecode files (containers do), every lbproxy of the suite would compile all its modules
# anew: a sixth of the suite's CPU. They lie beside the modules, as usual: in a place of their own (PYTHONPYCACHEPREFIX)
# Python would not find those of its own library, and the first run would compile that as well.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# A shell that runs the suite in the background ignores Ctrl-C for it; the programs under test would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


PROCESSES_PER_CPU, MOST_PROCESSES = 3, 16  # half of the time of a test goes by while it waits


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """`-n auto`."""
    return min(PROCESSES_PER_CPU * len(os.sched_getaffinity(0)), MOST_PROCESSES)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give each process of pytest-xdist its share of long tests, of end-to-end tests, which mostly wait, and of others.

    Each process begins with one part of the list, all parts of the same size, and takes tests from the end of another's
    part when its own is done. So a part begins with long tests and ends with quick ones.
    """
    count = getattr(config, "workerinput", {}).get("workercount", 1)
    long = [item for item in items if item.get_closest_marker("long")]
    others = [item for item in items if not item.get_closest_marker("long")]
    waiting = [item for item in others if "e2e" in item.path.parts]
    computing = [item for item in others if "e2e" not in item.path.parts]
    ordered: list[pytest.Item] = []
    for part in range(count):
        size = (len(items) - len(ordered)) // (count - part)  # as xdist cuts
        mine = [*long[part::count], *_cut(waiting, part, count)]
        fill, computing = computing[: max(0, size - len(mine))], computing[max(0, size - len(mine)) :]
        ordered += [*long[part::count], *_mixed(_cut(waiting, part, count), fill)]
    items[:] = [*ordered, *computing]


def _cut(items: list[pytest.Item], part: int, count: int) -> list[pytest.Item]:
    return items[part * len(items) // count : (part + 1) * len(items) // count]


def _mixed(waiting: list[pytest.Item], computing: list[pytest.Item]) -> list[pytest.Item]:
    """Files of both kinds by turns, each file whole. The last part is `computing` alone."""
    placed = []
    for items, share in ((waiting, 0.9), (computing, 1.0)):
        files = [list(group) for _, group in groupby(items, lambda item: item.path)]
        placed += [(share * (number + 0.5) / len(files), file) for number, file in enumerate(files)]
    placed.sort(key=lambda pair: pair[0])
    return [item for _, file in placed for item in file]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """`@pytest.mark.peer("node", "nginx")`: skipped where one is missing; .ci/run installs them: there it fails."""
    wanted = [name for marker in item.iter_markers("peer") for name in marker.args]
    missing = [name for name in wanted if shutil.which(name) is None]
    if missing and os.environ.get("LBPROXY_CI"):
        pytest.fail(f"not on PATH: {', '.join(missing)}", pytrace=False)
    if missing:
        pytest.skip(f"not on PATH: {', '.join(missing)}")
