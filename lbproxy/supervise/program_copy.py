"""A copy of this package, made at the start: what is imported or started later is still this version.

`pip install -U` replaces files that a running lbproxy has not read yet. A worker, a guard or a late import from the new
files would be half of another version, so all of them come from the copy. Libraries of others are not copied.
"""

import contextlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import lbproxy
from lbproxy.supervise.private_directory import PrivateDirectory

FOLDER = "program"  # in the private directory: its content is what the import path names
MEMORY = "/dev/shm"
_PATH = "PYTHONPATH"


def make_copy() -> PrivateDirectory | None:
    """Copy the package, and import the rest of it from there. None where no directory can be written.

    25 ms of CPU and 6 MB. The copy lies in memory where it can: on a disk the kernel needs 0.2 to 0.6 ms of CPU for
    each of the 700 files (in containers /run is a disk, too). shutil.copytree takes half as long again; links would
    not do, because an editor writes into the same file.
    """
    return _copied_into(MEMORY) or _copied_into(None)


def _copied_into(parent: str | None) -> PrivateDirectory | None:
    """`parent`: as PrivateDirectory.make wants it."""
    try:
        directory = PrivateDirectory.make(parent)
    except OSError:
        return None
    try:
        source, target = Path(lbproxy.__path__[0]), directory.path / FOLDER / "lbproxy"
        target.parent.mkdir()
        target.parent.chmod(0o755)  # workers may run as another user, whatever the umask is
        _copy(str(source), str(target))
    except OSError:  # such as: a container's memory for files is full
        directory.close()
        return None
    _import_from(str(source), str(target))
    return directory


def import_path() -> str:
    """The directory from which this version of lbproxy can be imported."""
    return str(Path(lbproxy.__path__[0]).parent)


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment in which another interpreter imports this version of lbproxy."""
    if Path(lbproxy.__file__).parent == Path(lbproxy.__path__[0]):
        return dict(environ)  # no copy: it would find what this one has found
    given = environ.get(_PATH)
    return {**environ, _PATH: os.pathsep.join([import_path(), *([given] if given else [])])}


def _copy(source: str, target: str) -> None:
    for folder, _, files in os.walk(source):
        into = target + folder[len(source) :]
        os.mkdir(into)
        os.chmod(into, 0o755)
        for name in files:
            with open(os.path.join(folder, name), "rb", buffering=0) as file:
                facts, data = os.fstat(file.fileno()), file.read()
            fd = os.open(os.path.join(into, name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            with open(fd, "wb", buffering=0) as copy:
                copy.write(data)
                os.fchmod(fd, 0o644)
                # The compiled files know their source by its time.
                os.utime(fd, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def _import_from(source: str, target: str) -> None:
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "lbproxy" and (paths := getattr(module, "__path__", None)):
            found = [target + path[len(source) :] if path.startswith(source) else path for path in paths]
            with contextlib.suppress(AttributeError):
                module.__path__ = found
            if module.__spec__ is not None:
                module.__spec__.submodule_search_locations = found
