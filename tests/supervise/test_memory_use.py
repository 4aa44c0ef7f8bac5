"""The memory of real processes: shared pages count once."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from lbproxy.supervise import memory_use
from lbproxy.supervise.memory_use import proportional_bytes
from lbproxy.supervise.usage import read_usage

MIB = 1 << 20
# 64 MiB that the child shares with its parent, and 16 MiB of its own.
FAMILY = """
import os, sys
shared = bytearray(os.urandom(1 << 20)) * 64
if os.fork() == 0:
    own = bytearray(os.urandom(1 << 20)) * 16
    print(os.getpid(), flush=True)
    sys.stdin.read()
    os._exit(0)
sys.stdin.read()
os.wait()
"""


@pytest.fixture(scope="module")
def family() -> Iterator[tuple[int, int]]:
    """The pids of a session's leader and of its child."""
    command = [sys.executable, "-S", "-c", FAMILY]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as leader:
        assert leader.stdout is not None
        child = int(leader.stdout.readline())
        yield leader.pid, child
        assert leader.stdin is not None
        leader.stdin.close()


def test_a_shared_page_counts_once(family: tuple[int, int]) -> None:
    leader, _ = family
    assert read_usage({leader})[leader].resident_bytes > 144 * MIB
    assert 80 * MIB < proportional_bytes({leader})[leader] < 120 * MIB


def test_where_the_kernel_hides_the_maps_the_pages_without_a_file_count(
    family: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = open

    def hidden(path: str, mode: str) -> object:
        if path.endswith("smaps_rollup"):
            raise PermissionError(path)
        return real(path, mode)

    monkeypatch.setattr(memory_use, "open", hidden, raising=False)
    leader, _ = family
    assert 144 * MIB < proportional_bytes({leader})[leader] < read_usage({leader})[leader].resident_bytes


def test_a_process_that_is_gone_uses_nothing() -> None:
    assert proportional_bytes({1 << 30}) == proportional_bytes(()) == {}
    assert memory_use._bytes_of(1 << 30) == 0
