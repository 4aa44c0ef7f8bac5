"""Symlinks that lead nowhere: what a message about a missing path adds, so that nobody has to look for the reason."""

import os
from pathlib import Path


def dangling_symlink(path: str) -> str:
    """The end of a message about a path that does not exist; empty if no symlink on the way is dangling."""
    for step in (*reversed(Path(path).parents), Path(path)):
        try:
            if step.is_symlink() and not step.exists():
                return f" ({step} is a symlink to {os.readlink(step)!r}, which does not exist)"
        except (OSError, ValueError):  # a circle of symlinks, or no path at all
            return ""
    return ""
