"""The terminal that lbproxy was started from: a HUP says that it is gone, or asks for a reload."""

import os


def has_terminal() -> bool:
    """Whether this process has a controlling terminal that can be opened (ENXIO or EIO when it has gone)."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
