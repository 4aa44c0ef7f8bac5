"""Text files of the user's project, read to find a hint in them: never an error."""

import os

MOST_BYTES = 256 * 1024


def beginning_of(path: str | os.PathLike[str]) -> str:
    """The first MOST_BYTES characters; empty for what cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(MOST_BYTES)
    except (OSError, ValueError):  # ValueError: a NUL in the path
        return ""
