"""The pid file: written at the start, removed at the end."""

import os

from lbproxy.errors import LbproxyError


class PidFileFailed(LbproxyError):
    """The pid file cannot be written. The text is one line for the operator."""


class PidFile:
    def __init__(self, path: str) -> None:
        self._path = path
        self._text = f"{os.getpid()}\n"
        try:
            with open(path, "w", encoding="ascii") as file:
                file.write(self._text)
        except OSError as exc:
            raise PidFileFailed(f"cannot write the pid file {path}: {exc.strerror}") from None

    def close(self) -> None:
        """Remove the file, unless another process has written it since."""
        try:
            with open(self._path, encoding="ascii") as file:
                ours = file.read(len(self._text) + 1) == self._text
            if ours:
                os.unlink(self._path)
        except (OSError, UnicodeDecodeError):
            return
