"""Where each key of a TOML document stands in its text: tomllib tells no positions.

Takes only text that tomllib has accepted, so that nothing here has to doubt. Knows the shape of TOML 1.0 (tables,
arrays of tables, dotted keys, inline tables, arrays, strings of four kinds), not what the values mean.
"""

import bisect
import re
import tomllib
from dataclasses import dataclass, field

from lbproxy.config.problems import Path

_SPACE = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_KEY = re.compile(r"""[A-Za-z0-9_-]+|"(?:\\.|[^"\\])*"|'[^']*'""")
_DOT = re.compile(r"[ \t]*\.[ \t]*")
# The long strings first. A closing """ may have up to two quotes of the content before it. The alternatives exclude
# each other, so nothing is gained by possessive quantifiers, and Python 3.11.2 misreads an escaped quote with them.
_STRING = re.compile(
    r'''"""(?:\\.|[^"\\]|"(?!""))*"""(?:"{0,2})|\'\'\'.*?\'\'\'(?:'{0,2})|"(?:\\.|[^"\\])*"|'[^']*\'''', re.DOTALL
)
# A date and its time may be divided by one space.
_PLAIN = re.compile(r"[^\s,\]}#]+(?: \d\d:\d\d[^\s,\]}#]*)?")


@dataclass(frozen=True, slots=True)
class Places:
    """Positions by path. A key that several headers name ([a.b], [a.c]) stands where it is named first."""

    keys: dict[Path, int] = field(default_factory=dict)
    headers: dict[Path, int] = field(default_factory=dict)  # of the bracket that begins `[table]` or `[[table]]`
    line_starts: list[int] = field(default_factory=lambda: [0])

    def key(self, path: Path) -> tuple[int, int]:
        """Line and column of the key, or of the nearest thing around it that is written down."""
        while path and path not in self.keys:
            path = path[:-1]
        return self._place(self.keys.get(path, 0))

    def table(self, path: Path) -> tuple[int, int]:
        """Line and column of the table's header; of its key if it has none."""
        return self._place(self.headers[path]) if path in self.headers else self.key(path)

    def _place(self, offset: int) -> tuple[int, int]:
        line = bisect.bisect_right(self.line_starts, offset)
        return line, offset - self.line_starts[line - 1] + 1


def locate(text: str) -> Places:
    """Find every key and element of `text`, a valid TOML document."""
    return _Locator(text).document()


class _Locator:
    """One pass over the text; `_at` is where it stands."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._places = Places(line_starts=[0, *(match.end() for match in re.finditer("\n", text))])
        self._counts: dict[Path, int] = {}  # elements so far of each array of tables

    def document(self) -> Places:
        table: Path = ()
        self._skip_space()
        while self._at < len(self._text):
            if self._text.startswith("[", self._at):
                table = self._header()
            else:
                self._pair(table)
            self._skip_space()
        return self._places

    def _header(self) -> Path:
        start = self._at
        brackets = 2 if self._text.startswith("[[", start) else 1
        self._at += brackets
        self._skip_space()
        *parents, last = self._dotted_key()
        table: Path = ()
        for name, at in parents:
            table = self._newest((*table, name), at)
        table = (*table, last[0])
        self._places.keys.setdefault(table, last[1])
        if brackets == 2:
            number = self._counts.get(table, 0)
            self._counts[table] = number + 1
            self._places.headers.setdefault(table, start)
            table = (*table, number)
            self._places.keys[table] = start
        self._places.headers[table] = start
        self._skip_space()
        self._at += brackets
        return table

    def _newest(self, path: Path, at: int) -> Path:
        """A header that names an array of tables means its last element."""
        self._places.keys.setdefault(path, at)
        return (*path, self._counts[path] - 1) if path in self._counts else path

    def _pair(self, table: Path) -> None:
        path = table
        for name, at in self._dotted_key():
            path = (*path, name)
            self._places.keys.setdefault(path, at)
        self._skip_space()
        self._at += 1  # the equals sign
        self._value(path)

    def _value(self, path: Path) -> None:
        self._skip_space()
        opening = self._text[self._at]
        if opening == "[":
            self._array(path)
        elif opening == "{":
            self._inline_table(path)
        else:
            self._match(_STRING if opening in "\"'" else _PLAIN)

    def _array(self, path: Path) -> None:
        number = 0
        while not self._closed("]"):
            self._places.keys[*path, number] = self._at
            self._value((*path, number))
            number += 1

    def _inline_table(self, path: Path) -> None:
        while not self._closed("}"):
            self._pair(path)

    def _closed(self, bracket: str) -> bool:
        """Step over the opening bracket or a comma; over the closing bracket too, if that is what follows."""
        self._skip_space()
        if self._text[self._at] != bracket:
            self._at += 1
            self._skip_space()
        if self._text[self._at] != bracket:
            return False
        self._at += 1
        return True

    def _dotted_key(self) -> list[tuple[str, int]]:
        parts = []
        while True:
            at = self._at
            lexeme = self._match(_KEY)
            parts.append((tomllib.loads(f"k = {lexeme}")["k"] if lexeme[0] in "\"'" else lexeme, at))
            dot = _DOT.match(self._text, self._at)
            if dot is None:
                return parts
            self._at = dot.end()

    def _skip_space(self) -> None:
        self._match(_SPACE)

    def _match(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self._text, self._at)
        assert found is not None, "not a TOML document"
        self._at = found.end()
        return found[0]
