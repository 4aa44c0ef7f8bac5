"""Single keys from the terminal, without Enter. Knows no command.

Where standard input is no terminal there are no keys, and `wait` only waits.
"""

import os
import select
import sys
import termios
import threading
import tty
from typing import Any

_ESCAPES = {"\x1b[A": "up", "\x1b[B": "down", "\x1b[C": "right", "\x1b[D": "left"}
_ESCAPES |= {text.replace("[", "O"): name for text, name in _ESCAPES.items()}  # of a terminal in application mode
_READ_BYTES = 64


class Keyboard:
    """`with Keyboard() as keyboard`: the terminal gives each key at once, and does not show it."""

    def __init__(self) -> None:
        self._fd: int | None = None
        self._before: list[Any] = []

    def __enter__(self) -> "Keyboard":
        if sys.stdin is not None and sys.stdin.isatty():
            self._fd = sys.stdin.fileno()
            self._before = termios.tcgetattr(self._fd)
            tty.setcbreak(self._fd)
        return self

    def __exit__(self, *exc: object) -> None:
        if self._fd is not None:
            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)

    def wait(self, timeout_s: float) -> list[str]:
        """The keys that were pressed: a character each, or up, down, left, right. Empty after `timeout_s`."""
        if self._fd is None:
            threading.Event().wait(timeout_s)
            return []
        ready, _, _ = select.select([self._fd], [], [], max(0.0, timeout_s))
        if not ready:
            return []
        data = os.read(self._fd, _READ_BYTES)
        return keys_of(data.decode("utf-8", "replace")) if data else ["q"]  # the terminal is gone


def keys_of(text: str) -> list[str]:
    keys = []
    while text:
        name = _ESCAPES.get(text[:3])
        keys.append(name or text[0])
        text = text[3 if name else 1 :]
    return keys
