"""Standard streams that must exist: descriptors 0, 1 and 2 are opened on /dev/null where they are missing.

Knows three descriptors and nothing else. A process that is started with one of them closed (`lbproxy serve 2>&-`)
would give its number to the next file that it opens: the grid's memory became descriptor 2 once, and log lines became
counters.
"""

import os
import sys

STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def open_missing_streams() -> None:
    """Open what is missing of 0, 1 and 2. To be called before the process opens anything else."""
    for fd, (name, mode) in enumerate(STREAMS):
        try:
            os.fstat(fd)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != fd:
                os.dup2(null, fd)
                os.close(null)
            os.set_inheritable(fd, True)  # a child without a stream would have the same trouble
        if getattr(sys, name) is None:
            stream = open(fd, mode, encoding="utf-8", closefd=False)  # noqa: SIM115 (open as long as the process)
            setattr(sys, name, stream)
