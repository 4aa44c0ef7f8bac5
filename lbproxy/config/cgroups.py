"""The control groups of this process, from its own one up to the root of what is mounted (cgroups(7)).

Knows /proc and the file systems of cgroup v1 and v2. Does not know the files in a group: its callers do.
"""

import os
from collections.abc import Iterator
from pathlib import Path


def cgroups(
    controller: str, own: str = "/proc/self/cgroup", mounts: str = "/proc/self/mountinfo"
) -> Iterator[tuple[int, Path]]:
    """The version (1 or 2) and the directory of each group that can limit this process in `controller` ("cpu")."""
    groups = _groups(own)
    for kind, controllers, root, mount in _mounts(mounts):
        name = "" if kind == "cgroup2" else controller
        if name not in groups or (name and name not in controllers):
            continue
        # In a container the mount shows the container's group at its root, and the path is that of the host.
        inside = os.path.relpath(groups[name], root)
        directory = Path(mount, "." if inside.startswith("..") else inside)
        for group in (directory, *directory.parents):
            if not str(group).startswith(mount):
                break
            yield 2 if kind == "cgroup2" else 1, group


def lines(path: str | Path) -> list[str]:
    """The lines of a file; none if it cannot be read."""
    try:
        return Path(path).read_text("utf-8", "replace").splitlines()
    except OSError:
        return []


def _groups(own: str) -> dict[str, str]:
    """The path of this process's group for each controller; "" is version 2's."""
    found = {}
    for line in lines(own):
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            found[name] = path
    return found


def _mounts(mounts: str) -> Iterator[tuple[str, list[str], str, str]]:
    """Kind, controllers, root and mount point of each cgroup file system."""
    for line in lines(mounts):
        before, _, behind = line.partition(" - ")
        kind, _, options = [*behind.split(" "), "", ""][:3]
        if kind in ("cgroup", "cgroup2"):
            words = before.split(" ")
            yield kind, options.split(","), words[3], words[4]
