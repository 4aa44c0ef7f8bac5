"""The protocol of sd_notify(3): one datagram with one VARIABLE=VALUE per line, to the socket of the service manager.

Knows the environment of the service manager and the socket. announce.py knows when to send what.
"""

import socket
from collections.abc import MutableMapping
from dataclasses import dataclass

import trio

VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


@dataclass(frozen=True, slots=True)
class Notify:
    """`where`: a path, or "@name" for an abstract socket. `watchdog_s`: the longest silence; None: no watchdog."""

    where: str
    watchdog_s: float | None = None

    async def send(self, *lines: str) -> None:
        """Waits while the queue of the receiver is full. Raises OSError."""
        where = "\0" + self.where[1:] if self.where.startswith("@") else self.where
        # A socket for each message, as sd_notify does it: the receiver may be another one by now.
        with trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            await sock.connect(where)
            await sock.send("\n".join(lines).encode())


def take(environ: MutableMapping[str, str], pid: int) -> Notify | None:
    """Read the variables and remove them: no child may speak for lbproxy. None: no service manager listens."""
    where, usec, watched = (environ.pop(name, "") for name in VARIABLES)
    if not where:
        return None
    is_watched = usec.isascii() and usec.isdigit() and int(usec) > 0 and watched in ("", str(pid))
    return Notify(where, int(usec) / 1e6 if is_watched else None)
