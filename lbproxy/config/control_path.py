"""Where the control socket is (CONTRACT.md 1), and the state beside it.

Client commands ask here, so it needs the standard library only, is quick, and finds the answer even in a file that
is full of mistakes. `load` asks here too: there is one rule.
"""

import contextlib
import hashlib
import os
import re
import stat
import tomllib

_LONGEST_STEM = 32  # a unix socket's path has at most 107 bytes
_HEADER = re.compile(r"\s*\[\s*([^\[\]]*?)\s*\]\s*(?:#.*)?")
_CONTROL = re.compile(r"""\s*(proxy\s*\.\s*)?control\s*=\s*("(?:\\.|[^"\\])*"|'[^']*')\s*(?:#.*)?""")


def named_path(path: str) -> str:
    """The absolute path as it was named: a symlink in the working directory's own name (`current`) stays a symlink.

    The shell tells that name in $PWD; it counts while it leads to the working directory, and once that is deleted.
    """
    if os.path.isabs(path):
        return os.path.normpath(path)
    return os.path.normpath(os.path.join(_working_directory(), path))


def control_path(path: str) -> str:
    """The control socket that `serve` makes for the file `path`, whether or not the file is there or valid."""
    return resolve(path, _named_in(path))


def control_paths(path: str) -> list[str]:
    """Every place where the control socket for the file `path` can be, whatever the environment of its `serve` was."""
    control = _named_in(path)
    if control:
        return [resolve(path, control)]
    # A shell that stood in `current` before it moved on has an old directory under a name that now means another one.
    names = [named_path(path), os.path.join(os.environ.get("PWD", ""), path), os.path.abspath(path)]
    files = [
        _file_name(_stem(full), full) for full in dict.fromkeys(map(os.path.normpath, names)) if os.path.isabs(full)
    ]
    return [os.path.join(place, file) for file in files for place in places()]


def resolve(path: str, control: str | None) -> str:
    """The absolute path for what the file at `path` says; its default if it says nothing."""
    full = named_path(path)
    if control:
        return os.path.join(os.path.dirname(full), control)
    return os.path.join(_own_place(), _file_name(_stem(full), full))


def control_path_for_listener(listen: str) -> str:
    """The control socket of the form without a file: `lbproxy serve -l :8080 -- ...`."""
    return os.path.join(_own_place(), _file_name(listen, listen))


def state_dir(full: str) -> str:
    """Where `serve` keeps its state for the file at this absolute path, if the file does not say."""
    return os.path.join(_state_place(), _file_name(_stem(full), full).removesuffix(".sock"))


def state_dir_for_listener(listen: str) -> str:
    """The same for the form without a file."""
    return os.path.join(_state_place(), _file_name(listen, listen).removesuffix(".sock"))


def places() -> list[str]:
    """Directories of control sockets, the best one first. Where they lie depends on the environment of `serve`."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    own = f"/run/user/{os.geteuid()}"
    found = [runtime, own] if runtime else [own] if os.path.isdir(own) else []
    return [*dict.fromkeys(os.path.join(place, "lbproxy") for place in found), "/run/lbproxy", private_place()]


def private_place() -> str:
    """The directory of last resort, below a directory that everybody may write to: see `why_not_private`."""
    return f"/tmp/lbproxy-{os.geteuid()}"


def why_not_private(directory: str) -> str | None:
    """Why a directory is not safe to put a socket into, or to look for one; None: it is safe, or not there yet."""
    try:
        found = os.lstat(directory)
    except FileNotFoundError:
        return None
    except OSError as exc:
        return exc.strerror or str(exc)
    if stat.S_ISLNK(found.st_mode) or not stat.S_ISDIR(found.st_mode):
        return "it is not a directory"
    if found.st_uid != os.geteuid():
        return "it belongs to another user"
    return "it is open to other users" if found.st_mode & 0o077 else None


def sockets_of_this_user() -> list[str]:
    """Every control socket in the usual places that belongs to this user."""
    found = []
    for place in places():
        if place == private_place() and why_not_private(place) is not None:
            continue
        with contextlib.suppress(OSError):
            for entry in sorted(os.scandir(place), key=lambda entry: entry.name):
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISSOCK(status.st_mode) and status.st_uid == os.geteuid():
                    found.append(entry.path)
    return found


def _state_place() -> str:
    given = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]  # of systemd, which may name several
    if given:
        return given
    if os.geteuid() == 0:
        return "/var/lib/lbproxy"
    home = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local/state")
    return os.path.join(home, "lbproxy")


def _own_place() -> str:
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    choices = [*([os.path.join(runtime, "lbproxy")] if runtime else []), "/run/lbproxy"]
    return next((place for place in choices if _can_be_written(place)), private_place())


def _can_be_written(directory: str) -> bool:
    """Whether a socket can be made there. `serve` makes the missing directories of the path."""
    while not os.path.lexists(directory):
        directory = os.path.dirname(directory)
    return os.path.isdir(directory) and os.access(directory, os.W_OK | os.X_OK)


def _working_directory() -> str:
    named = os.environ.get("PWD", "")
    try:
        if os.path.isabs(named) and os.path.samefile(named, "."):
            return named
    except OSError:
        pass
    try:
        return os.getcwd()
    except FileNotFoundError:  # deleted, as old releases are: its name may lead to another one now
        return named if os.path.isabs(named) else os.readlink("/proc/self/cwd").removesuffix(" (deleted)")


def _stem(full: str) -> str:
    return os.path.splitext(os.path.basename(full))[0]


def _file_name(name: str, full: str) -> str:
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:_LONGEST_STEM] or "lb"
    short = hashlib.sha256(os.fsencode(full)).hexdigest()[:8]
    return f"{stem}-{short}.sock"


def _named_in(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
            text = file.read()
    except OSError:
        return None
    try:
        control = tomllib.loads(text)["proxy"]["control"]
    except (tomllib.TOMLDecodeError, RecursionError):
        control = _scan(text)
    except (KeyError, TypeError):
        return None
    return control if isinstance(control, str) else None


def _scan(text: str) -> str | None:
    """`control = "..."` below [proxy], read with a regular expression from a text that is not valid TOML."""
    table = ""
    for line in text.split("\n"):
        opened = _HEADER.fullmatch(line)
        if opened is not None:
            table = opened[1]
        elif line.lstrip().startswith("["):
            table = "another"
        found = _CONTROL.fullmatch(line)
        if found is not None and table == ("" if found[1] else "proxy"):
            try:
                return str(tomllib.loads(f"k = {found[2]}")["k"])
            except tomllib.TOMLDecodeError:
                continue
    return None
