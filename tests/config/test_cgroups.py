"""Which groups limit this process; what stands in them is tested where it is read (cpus.py, free_memory.py)."""

from pathlib import Path

from lbproxy.config.cgroups import cgroups, lines


def test_every_group_up_to_the_mount_is_found_in_both_versions(tmp_path: Path) -> None:
    one, two = tmp_path / "memory", tmp_path / "unified"
    (tmp_path / "own").write_text("4:memory:/docker/abc\n3:cpu:/other\n0::/app/web\n")
    (tmp_path / "mounts").write_text(
        f"31 23 0:27 /docker/abc {one} rw - cgroup cgroup rw,memory\n30 23 0:26 / {two} rw - cgroup2 cgroup2 rw\n"
    )
    found = list(cgroups("memory", str(tmp_path / "own"), str(tmp_path / "mounts")))
    assert found == [(1, one), (2, two / "app" / "web"), (2, two / "app"), (2, two)]
    assert list(cgroups("memory", str(tmp_path / "none"), str(tmp_path / "none"))) == []


def test_a_file_that_cannot_be_read_has_no_lines(tmp_path: Path) -> None:
    assert lines(tmp_path / "none") == []
