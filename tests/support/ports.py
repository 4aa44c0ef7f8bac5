"""TCP ports for tests: below the ephemeral range and below the ports that lbproxy gives to its backends."""

import os
import random
import socket

FIRST, LAST = 10_000, 19_999
QUIET_FIRST, QUIET_LAST = 30_000, 32_767  # between lbproxy's own and the ephemeral range
_SLICE = 1_000  # one for each worker of pytest-xdist, so that they need not race
_given: set[int] = set()
_draw = random.Random(os.getpid())


def free_port() -> int:
    """A port without a listener that this process has not been given before."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    start = FIRST + worker % ((LAST + 1 - FIRST) // _SLICE) * _SLICE
    for port in _draw.sample(range(start, start + _SLICE), _SLICE):
        if port not in _given and _is_free(port):
            _given.add(port)
            return port
    raise RuntimeError(f"no free port in {start}-{start + _SLICE - 1}")


def free_range(count: int) -> int:
    """The first of `count` ports that nobody has, where neither lbproxy nor a test takes one, nor the kernel."""
    starts = list(range(QUIET_FIRST, QUIET_LAST - count, count))
    _draw.shuffle(starts)
    for start in starts:
        if all(map(_is_free, range(start, start + count))):
            return start
    raise RuntimeError(f"no {count} free ports in {QUIET_FIRST}-{QUIET_LAST}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # TIME_WAIT does not matter, a listener does
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return False
    return True
