"""What holds for the whole suite: deterministic Hypothesis, and tests that need a peer program."""

import os
import shutil
import signal

import pytest
from hypothesis import settings

settings.register_profile("lbproxy", derandomize=True, deadline=None, database=None)
settings.load_profile("lbproxy")

# A shell that runs the suite in the background ignores Ctrl-C for it; the programs under test would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """`@pytest.mark.peer("node", "nginx")`: skipped where one is missing; .ci/run installs them: there it fails."""
    wanted = [name for marker in item.iter_markers("peer") for name in marker.args]
    missing = [name for name in wanted if shutil.which(name) is None]
    if missing and os.environ.get("LBPROXY_CI"):
        pytest.fail(f"not on PATH: {', '.join(missing)}", pytrace=False)
    if missing:
        pytest.skip(f"not on PATH: {', '.join(missing)}")
