"""The ids of changes: a letter and a number (`r7` a reload, `d2` a drain), unlike all that the history has.

Knows neither changes nor the history.
"""

from collections.abc import Iterable


class ChangeIds:
    def __init__(self) -> None:
        self._last: dict[str, int] = {}  # by letter

    def next(self, letter: str) -> str:
        self._last[letter] = self._last.get(letter, 0) + 1
        return f"{letter}{self._last[letter]}"

    def last(self) -> dict[str, int]:
        """The number of the last id of each letter."""
        return dict(self._last)

    def go_on_behind(self, ids: Iterable[str]) -> None:
        """The ids that an earlier lbproxy gave; what does not look like one is passed over."""
        for id in ids:
            letter, number = id[:1], id[1:]
            if number.isascii() and number.isdigit() and len(number) < 10:
                self._last[letter] = max(self._last.get(letter, 0), int(number))
