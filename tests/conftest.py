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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests first; then files of end-to-end tests, which mostly wait, spread among those that mostly compute.

    pytest-xdist gives each of its processes a part of the list to begin with.
    """
    long = [item for item in items if item.get_closest_marker("long")]
    others = [item for item in items if not item.get_closest_marker("long")]
    files = [list(group) for _, group in groupby(others, lambda item: item.path)]
    waiting = [file for file in files if "e2e" in file[0].path.parts]
    computing = [file for file in files if "e2e" not in file[0].path.parts]
    placed = [((number + 0.5) / len(kind), file) for kind in (waiting, computing) for number, file in enumerate(kind)]
    placed.sort(key=lambda pair: pair[0])
    items[:] = [*long, *(item for _, file in placed for item in file)]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """`@pytest.mark.peer("node", "nginx")`: skipped where one is missing; .ci/run installs them: there it fails."""
    wanted = [name for marker in item.iter_markers("peer") for name in marker.args]
    missing = [name for name in wanted if shutil.which(name) is None]
    if missing and os.environ.get("LBPROXY_CI"):
        pytest.fail(f"not on PATH: {', '.join(missing)}", pytrace=False)
    if missing:
        pytest.skip(f"not on PATH: {', '.join(missing)}")
