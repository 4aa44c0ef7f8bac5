"""A process has a terminal, or none: in a session of its own without one, and at a pty."""

import os
import pty
import subprocess
import sys

SAY = "from lbproxy.control.terminal import has_terminal; print(has_terminal())"


def test_a_session_of_its_own_has_none() -> None:
    done = subprocess.run([sys.executable, "-c", SAY], capture_output=True, check=True, start_new_session=True)
    assert done.stdout == b"False\n"


def test_at_a_pty_there_is_one() -> None:
    main, side = pty.openpty()
    take = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    command = [sys.executable, "-c", take + SAY]
    done = subprocess.run(command, stdin=side, stdout=subprocess.PIPE, check=True, start_new_session=True)
    os.close(main)
    os.close(side)
    assert done.stdout == b"True\n"
