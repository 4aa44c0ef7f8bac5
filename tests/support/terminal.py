"""A command on a terminal of its own: what it draws, and keys for it."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import monotonic

LONGEST_WAIT_S = 20.0
ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[a-zA-Z]|[=>])")


class Terminal:
    def __init__(self, command: Sequence[str], rows: int, columns: int) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        environment = {
            name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")
        }
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env={**environment, "TERM": "xterm"}
        )
        self.settings = termios.tcgetattr(theirs)
        self._theirs = theirs
        self.raw = ""

    @property
    def shown(self) -> str:
        """Everything that was drawn so far, without colours and movements of the cursor."""
        return ESCAPES.sub("", self.raw)

    def press(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def wait_for(self, text: str, *, times: int = 1) -> None:
        """Wait until the text was drawn so many times from now on."""
        before = self.shown.count(text)
        self._read_until(lambda: self.shown.count(text) - before >= times, f"{text!r}")

    def wait_end(self) -> int:
        self._read_until(lambda: self.process.poll() is not None, "the end")
        self._read()
        return self.process.wait()

    def is_as_before(self) -> bool:
        """Whether the terminal's settings are those from before the command."""
        return termios.tcgetattr(self._theirs) == self.settings

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        os.close(self._ours)
        os.close(self._theirs)

    def _read_until(self, condition: object, what: str) -> None:
        assert callable(condition)
        deadline = monotonic() + LONGEST_WAIT_S
        while not condition():
            assert monotonic() < deadline, f"no {what} in:\n{self.shown[-3000:]}"
            self._read(0.05)

    def _read(self, timeout_s: float = 0.0) -> None:
        while select.select([self._ours], [], [], timeout_s)[0]:
            self.raw += os.read(self._ours, 65536).decode(errors="replace")
            timeout_s = 0.0


@contextmanager
def terminal(command: Sequence[str], *, rows: int = 24, columns: int = 100) -> Iterator[Terminal]:
    screen = Terminal(command, rows, columns)
    try:
        yield screen
    finally:
        screen.close()
