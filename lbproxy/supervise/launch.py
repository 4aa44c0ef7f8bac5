"""The exec step of `bind = "fd"`: runs in the child, then becomes the backend.

Moves the inherited listening socket to descriptor 3, sets LISTEN_PID where LISTEN_FDS is set, drops privileges and
executes the command. Control does not raise its RLIMIT_NOFILE, so there is none to restore.
The interpreter runs this as a file and reads neither the environment nor site, because both belong to the backend.
Imports nothing of lbproxy.
"""

import os
import signal
import sys
from collections.abc import Sequence

FD = 3  # of an inherited socket, as systemd has it


def command(interpreter: str, fd: int, credentials: str, words: Sequence[str]) -> tuple[str, ...]:
    """The words that start this step.

    `credentials` is uid:gid:groups or "-". `words` are the path of the program and its argv.
    """
    return (interpreter, "-I", "-S", __file__, str(fd), credentials, *words)


def main(arguments: list[str]) -> None:
    fd, credentials, program, *words = arguments
    if int(fd) == FD:
        os.set_inheritable(FD, True)
    else:
        os.dup2(int(fd), FD)
        os.close(int(fd))
    if credentials != "-":
        uid, gid, groups = credentials.split(":")
        os.setgroups([int(group) for group in groups.split(",") if group])
        os.setgid(int(gid))
        os.setuid(int(uid))
    # The interpreter ignores these signals. The backend must not inherit that.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    if "LISTEN_FDS" in os.environ:
        os.environ["LISTEN_PID"] = str(os.getpid())
    try:
        os.execv(program, words)
    except OSError as exc:
        os.write(2, f"lbproxy: cannot execute {program}: {exc.strerror}\n".encode())
        os._exit(126)


if __name__ == "__main__":
    main(sys.argv[1:])
