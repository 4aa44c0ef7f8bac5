"""Listening sockets that the service manager passes to lbproxy: sd_listen_fds(3), socket activation.

Knows the environment, the names, and what such a socket must be. sockets.py gives them to listeners. They stay open:
they are the service manager's, and its clients wait there for the next lbproxy.
"""

import contextlib
import os
import socket
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass

from lbproxy.errors import LbproxyError

FIRST = 3  # the descriptors of the sockets begin here
VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")
_UNNAMED = "unknown"  # as sd_listen_fds_with_names calls them
_MOST = 1000


class NotPassed(LbproxyError):
    """A listener asks for a socket that was not passed, or is of no use. The text is the end of a sentence."""


@dataclass(frozen=True, slots=True)
class PassedSockets:
    """`names`: of the descriptors from `first` on. `why_none`: the reason why there are none."""

    names: tuple[str, ...] = ()
    why_none: str = "lbproxy was started without sockets (LISTEN_FDS is not set)"
    first: int = FIRST

    @property
    def descriptors(self) -> tuple[int, ...]:
        return tuple(range(self.first, self.first + len(self.names)))

    def open(self, wanted: str) -> socket.socket:
        """A copy of the socket that `wanted` names: a name, or its number from 0. Raises NotPassed."""
        fd = self.first + self._number(wanted)
        try:
            sock = socket.socket(fileno=os.dup(fd))
        except OSError as exc:
            raise NotPassed(f"descriptor {fd} is no socket: {exc.strerror}") from None
        listens = sock.type == socket.SOCK_STREAM and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        if not listens or sock.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
            sock.close()
            raise NotPassed("it is no listening stream socket (a .socket unit needs ListenStream= and Accept=no)")
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted connections inherit it
        return sock

    def unused(self, used: Sequence[int]) -> list[str]:
        """The sockets of which no descriptor in `used` is a copy: "fd:0 (web)"."""
        return [
            f"fd:{number} ({name})"
            for number, name in enumerate(self.names)
            if not any(_is_same(self.first + number, fd) for fd in used)
        ]

    def _number(self, wanted: str) -> int:
        if not self.names:
            raise NotPassed(self.why_none)
        if wanted.isascii() and wanted.isdigit():
            if int(wanted[:9]) < len(self.names):
                return int(wanted)
            numbered = ", ".join(f"fd:{number} {name}" for number, name in enumerate(self.names))
            raise NotPassed(f"no socket has this number (there is: {numbered})")
        numbers = [number for number, name in enumerate(self.names) if name == wanted]
        if not numbers:
            raise NotPassed(f"no socket is called {wanted!r} (there is: {', '.join(dict.fromkeys(self.names))})")
        if len(numbers) > 1:
            which = ", ".join(f"fd:{number}" for number in numbers)
            raise NotPassed(f"{len(numbers)} sockets are called {wanted!r}: write one of {which}")
        return numbers[0]


def _is_same(one: int, other: int) -> bool:
    try:
        return os.path.sameopenfile(one, other)
    except OSError:
        return False


def take(environ: MutableMapping[str, str], pid: int) -> PassedSockets:
    """Read the variables and remove them, and let no child inherit the descriptors."""
    owner, count, names, _ = (environ.pop(name, "") for name in VARIABLES)
    if not count:
        return PassedSockets()
    if owner != str(pid):
        return PassedSockets(why_none=f"the sockets were passed to process {owner or '?'}, and lbproxy is {pid}")
    if not (count.isascii() and count.isdigit() and int(count[:9]) <= _MOST):
        return PassedSockets(why_none=f"LISTEN_FDS is {count!r}")
    for fd in range(FIRST, FIRST + int(count)):
        with contextlib.suppress(OSError):  # a listener that wants it hears of it
            os.set_inheritable(fd, False)
    named = names.split(":") if names else []
    row = [*named, *[_UNNAMED] * int(count)][: int(count)]
    return PassedSockets(tuple(name or _UNNAMED for name in row), "no sockets were passed (LISTEN_FDS is 0)")
