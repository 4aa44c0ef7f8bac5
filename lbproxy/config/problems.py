"""Mistakes in a configuration: what they are called and how they are shown (CONTRACT.md 2).

Knows paths into the document and positions in its text. Knows neither TOML nor pydantic.
"""

import datetime
import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from lbproxy.config.secret import masked
from lbproxy.errors import LbproxyError

Path = tuple[str | int, ...]  # ("pool", "web", "size"), ("listener", 0, "address")

_LONGEST_SOURCE = 160  # characters of a source line that are shown
_LONGEST_VALUE = 60
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Finding:
    """A mistake in the document, not yet located in the text.

    `named`: the message begins with the path. `at_table`: its place is the header of the table, as for a missing key.
    `see`: another place that the message names.
    """

    path: Path
    message: str
    named: bool = True
    at_table: bool = False
    see: Path | None = None
    lacks: tuple[str, ...] = ()  # keys, one of which is missing at `path`
    means: str | None = None  # the key that an unknown one is probably a misspelling of


@dataclass(frozen=True, slots=True)
class Problem:
    """A mistake with its place. Lines and columns (in characters) count from 1; line 0 is the file as a whole."""

    file: str
    line: int
    column: int
    message: str
    source: str

    def __str__(self) -> str:
        if self.line == 0:
            return f"{self.file}: error: {self.message}"
        place = f"{self.file}:{self.line}:{self.column}: error: {self.message}"
        return f"{place}\n{self.line:>6} | {self.source}".rstrip()


class ConfigInvalid(LbproxyError):
    """The configuration cannot be used. `text` is the whole report as users see it."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(dict.fromkeys(problems), key=lambda problem: (problem.line, problem.column)))
        count = len(self.problems)
        self.text = "\n".join([*map(str, self.problems), "1 error" if count == 1 else f"{count} errors"])
        super().__init__(self.text)


def source_line(text: str, line: int) -> str:
    """The line as it can be shown on a terminal. TOML ends lines by LF only: str.splitlines knows too many ends."""
    lines = text.split("\n")
    source = masked(lines[line - 1].rstrip()) if line <= len(lines) else ""
    shown = "".join(char if char.isprintable() or char == "\t" else ascii(char)[1:-1] for char in source)
    return shown if len(shown) <= _LONGEST_SOURCE else shown[:_LONGEST_SOURCE] + "…"


def closest(word: str, known: Iterable[str], likeness: float = 0.6) -> str | None:
    """The known word that `word` is probably a misspelling of."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=likeness)), None)


def nearest(word: str, known: Iterable[str]) -> str:
    """` (did you mean 'workers'?)`, or nothing."""
    found = closest(word, known)
    return f" (did you mean '{found}'?)" if found is not None else ""


def without_echoes(findings: Iterable[Finding]) -> list[Finding]:
    """The findings, without "missing" for a key that is there with a misspelt name."""
    found = list(findings)
    misspelt = {(finding.path[:-1], finding.means) for finding in found if finding.means is not None}
    return [finding for finding in found if not any((finding.path, key) in misspelt for key in finding.lacks)]


def dotted(path: Path) -> str:
    """`pool.web.balance`. The number of an array's element is left out: the line tells."""
    return ".".join(_key(part) for part in path if isinstance(part, str))


def header(path: Path) -> str:
    """The header of the table in the file: `[pool.web]`, `[[listener]]`."""
    return f"[[{dotted(path)}]]" if path and isinstance(path[-1], int) else f"[{dotted(path)}]"


def shown(value: object) -> str:
    """A value as messages quote it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else text[:_LONGEST_VALUE] + "…"


def _key(part: str) -> str:
    return part if _BARE_KEY.fullmatch(part) else '"' + part.encode("unicode_escape").decode().replace('"', '\\"') + '"'
