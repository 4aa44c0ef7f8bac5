import os
from pathlib import Path

import pytest

from lbproxy.config.cpus import usable_cpus

ALL = len(os.sched_getaffinity(0))


def v2(root: Path, path: str = "/app", **groups: str) -> tuple[str, str]:
    """A version 2 tree below `root`; `groups`: cpu.max of each group, with _ for /."""
    mount = root / "cgroup"
    for name, quota in groups.items():
        group = mount / name.replace("_", "/").strip("/")
        group.mkdir(parents=True, exist_ok=True)
        (group / "cpu.max").write_text(quota + "\n")
    (root / "own").write_text(f"0::{path}\n")
    (root / "mounts").write_text(f"30 23 0:26 / {mount} rw,nosuid - cgroup2 cgroup2 rw\n")
    return str(root / "own"), str(root / "mounts")


@pytest.mark.parametrize(
    ("quota", "cpus"),
    [
        ("max 100000", ALL),
        ("50000 100000", 1),
        ("100000 100000", 1),
        ("100001 100000", min(2, ALL)),
        ("9000000 100000", ALL),
    ],
)
def test_a_quota_counts_and_a_part_of_a_cpu_is_a_whole_one(quota: str, cpus: int, tmp_path: Path) -> None:
    assert usable_cpus(*v2(tmp_path, app=quota)) == cpus


def test_the_smallest_quota_on_the_way_up_counts(tmp_path: Path) -> None:
    assert usable_cpus(*v2(tmp_path, "/app/web", app="50000 100000", app_web="max 100000")) == 1


def test_a_container_sees_its_own_group_at_the_root(tmp_path: Path) -> None:
    assert usable_cpus(*v2(tmp_path, "/", _="50000 100000")) == 1
    assert usable_cpus(*v2(tmp_path / "more", "/../../docker/abc", _="50000 100000")) == 1


@pytest.mark.parametrize(("quota", "cpus"), [("-1", ALL), ("50000", 1)])
@pytest.mark.parametrize("root", ["/", "/docker/abc"])
def test_version_1_is_read_too(quota: str, cpus: int, root: str, tmp_path: Path) -> None:
    mount = tmp_path / "cpu,cpuacct"
    group = mount if root != "/" else mount / "docker" / "abc"
    group.mkdir(parents=True)
    (group / "cpu.cfs_quota_us").write_text(quota + "\n")
    (group / "cpu.cfs_period_us").write_text("100000\n")
    (tmp_path / "own").write_text("4:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n")
    (tmp_path / "mounts").write_text(f"31 23 0:27 {root} {mount} rw - cgroup cgroup rw,cpu,cpuacct\n")
    assert usable_cpus(str(tmp_path / "own"), str(tmp_path / "mounts")) == cpus


def test_without_cgroups_the_affinity_counts(tmp_path: Path) -> None:
    assert usable_cpus(str(tmp_path / "none"), str(tmp_path / "none")) == ALL
    assert 1 <= usable_cpus() <= ALL
