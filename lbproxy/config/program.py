"""Whether the program of a pool's command is there, looked for as a spawn will look for it (supervise/command.py).

Knows the settings of a pool and the file system. Starts nothing.
"""

import difflib
import os
import re

from lbproxy.settings import PoolSettings

_PATH_LINE = re.compile(r"\s*(export\s+)?PATH\s*=")
_LIKENESS = 0.75  # of names: there are thousands in PATH, and any word is a little like some of them
_VENVS = (".venv", "venv")


def why_no_program(pool: PoolSettings) -> str | None:
    """The reason, in one line; None if the program is there, or if nothing can be said before it is started."""
    if pool.command is None or "{" in pool.command[0] or not os.path.isdir(pool.directory):
        return None
    word = pool.command[0]
    if "/" in word:
        path = os.path.join(pool.directory, word)
        if not os.path.exists(path):
            return f"there is no program {word!r} in {pool.directory}"
        return None if _is_program(path) else f"{path!r} is not a program: it is not executable"
    variable = dict(pool.env).get("PATH", os.environ.get("PATH", os.defpath))
    if "PATH" not in dict(pool.env) and _sets_path(pool.env_file):
        return None
    folders = [os.path.join(pool.directory, folder or ".") for folder in variable.split(os.pathsep)]
    there = [path for folder in folders if os.path.isfile(path := os.path.join(folder, word))]
    if any(map(_is_program, there)):
        return None
    if there:
        return f"{there[0]!r} is not a program: it is not executable"
    return f"there is no program {word!r} in PATH ({_hint(word, pool.directory, folders) or variable})"


def _is_program(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)


def _hint(word: str, directory: str, folders: list[str]) -> str:
    for venv in _VENVS:
        if _is_program(os.path.join(directory, venv, "bin", word)):
            return f"there is {venv}/bin/{word}"
    names: set[str] = set()
    for folder in folders:
        try:
            names.update(os.listdir(folder))
        except OSError:
            continue
    means = difflib.get_close_matches(word, names, n=1, cutoff=_LIKENESS)
    return f"did you mean '{means[0]}'?" if means else ""


def _sets_path(env_file: str | None) -> bool:
    if env_file is None:
        return False
    try:
        with open(env_file, encoding="utf-8", errors="replace") as file:
            return any(_PATH_LINE.match(line) for line in file)
    except OSError:
        return False
