"""Where the control socket is (CONTRACT.md 1).

Client commands ask here, so it needs the standard library only, is quick, and finds the answer even in a file that
is full of mistakes. `load` asks here too: there is one rule.
"""

import hashlib
import os
import re
import tomllib

_LONGEST_STEM = 32  # a unix socket's path has at most 107 bytes
_HEADER = re.compile(r"\s*\[\s*([^\[\]]*?)\s*\]\s*(?:#.*)?")
_CONTROL = re.compile(r"""\s*(proxy\s*\.\s*)?control\s*=\s*("(?:\\.|[^"\\])*"|'[^']*')\s*(?:#.*)?""")


def control_path(path: str) -> str:
    """The control socket of the configuration file `path`, whether or not the file is there or valid."""
    return resolve(path, _named_in(path))


def resolve(path: str, control: str | None) -> str:
    """The absolute path for what the file at `path` says; its default if it says nothing."""
    if control:
        return os.path.join(os.path.dirname(os.path.abspath(path)), control)
    full = os.path.abspath(path)
    return _default(os.path.splitext(os.path.basename(full))[0], full)


def control_path_for_listener(listen: str) -> str:
    """The control socket of the form without a file: `lbproxy serve -l :8080 -- ...`."""
    return _default(listen, listen)


def _default(name: str, full: str) -> str:
    # The path is not freed from symlinks: a release directory that moves on must still find the one that runs.
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    directory = os.path.join(runtime, "lbproxy") if runtime else "/run/lbproxy"
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:_LONGEST_STEM] or "lb"
    short = hashlib.sha256(os.fsencode(full)).hexdigest()[:8]
    return os.path.join(directory, f"{stem}-{short}.sock")


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
    """What a person would see at a glance in a text that is not TOML: `control = "..."` below [proxy]."""
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
