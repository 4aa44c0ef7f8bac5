"""What is free, in files as the kernel writes them."""

from pathlib import Path

import pytest

from lbproxy.supervise.free_memory import FreeMemory, free_memory

MIB = 1 << 20


def machine(tmp_path: Path, version: int, **groups: tuple[str, str, int]) -> FreeMemory:
    """`groups`: limit, usage and inactive file pages of each group, with _ for /."""
    limit, usage, cache = {
        1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        2: ("memory.max", "memory.current", "inactive_file"),
    }[version]
    mount = tmp_path / "cgroup"
    for name, (most, used, inactive) in groups.items():
        group = mount / name.replace("_", "/").strip("/")
        group.mkdir(parents=True, exist_ok=True)
        (group / limit).write_text(f"{most}\n")
        (group / usage).write_text(f"{used}\n")
        (group / "memory.stat").write_text(f"anon 5\n{cache} {inactive}\n")
    (tmp_path / "own").write_text("0::/app/web\n" if version == 2 else "4:memory:/app/web\n")
    kind = "cgroup2 cgroup2 rw" if version == 2 else "cgroup cgroup rw,memory"
    (tmp_path / "mounts").write_text(f"30 23 0:26 / {mount} rw - {kind}\n")
    (tmp_path / "meminfo").write_text("MemTotal:  9000 kB\nMemAvailable:   1024 kB\n")
    return free_memory(*(str(tmp_path / name) for name in ("meminfo", "own", "mounts")))


@pytest.mark.parametrize("version", [1, 2])
def test_the_group_with_the_least_left_counts_and_caches_count_as_free(version: int, tmp_path: Path) -> None:
    groups = {"app": (f"{10 * MIB}", f"{9 * MIB}", 2 * MIB), "app_web": (f"{8 * MIB}", f"{MIB}", 0)}
    free = machine(tmp_path, version, **groups)
    assert free == FreeMemory(MIB, 3 * MIB)
    assert free.least_bytes == MIB


@pytest.mark.parametrize(("version", "no_limit"), [(1, "9223372036854771712"), (2, "max")])
def test_without_a_limit_only_the_host_counts(version: int, no_limit: str, tmp_path: Path) -> None:
    free = machine(tmp_path, version, app_web=(no_limit, "5", 0))
    assert free == FreeMemory(MIB, None)
    assert free.least_bytes == MIB


def test_nothing_to_read_is_nothing_known(tmp_path: Path) -> None:
    none = str(tmp_path / "none")
    assert free_memory(none, none, none).least_bytes is None
    assert free_memory().host_bytes
