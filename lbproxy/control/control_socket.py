"""The control socket as a file: one live owner, mode 0600 (0660 with a group), removed at the end.

Knows paths, locks and peers. Does not know the protocol.
"""

import contextlib
import fcntl
import grp
import os
import socket
import stat
import struct
from typing import Protocol

from lbproxy.address import Address
from lbproxy.config.control_path import private_place, why_not_private
from lbproxy.control.handed_on import HandedSocket
from lbproxy.control.listening_socket import taken_socket
from lbproxy.errors import LbproxyError

BACKLOG = 1024
ELSEWHERE = "proxy.control (or --control) names another place"
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


class HasOptions(Protocol):
    """A socket of the standard library or of Trio."""

    def getsockopt(self, level: int, optname: int, buflen: int, /) -> bytes: ...


class ControlSocketTaken(LbproxyError):
    """lbproxy cannot own the socket. The text is one line for the operator."""


class ControlSocket:
    """The bound and listening socket. `close` removes the file, if it is still ours."""

    def __init__(self, path: str, group: str | None = None) -> None:
        """`group`: its members may use the socket, too."""
        self.path = path
        directory = os.path.dirname(path) or "."
        self._made_directory = None if os.path.isdir(directory) else directory
        try:
            os.makedirs(directory, mode=0o700, exist_ok=True)
            why = why_not_private(directory) if directory == private_place() else None
            if why is not None:
                raise ControlSocketTaken(f"cannot use the control socket {path}: {directory}: {why}; {ELSEWHERE}")
            # Two lbproxies that start at once must not both find a stale socket. The lock is on the directory, so that
            # no lock file is left.
            lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                _clear(path)
                self.sock = _listening(path, group)
                self._identity = _identity(path)
            finally:
                os.close(lock)
        except KeyError:
            raise ControlSocketTaken(f"proxy.control_group: there is no group {group!r}") from None
        except OSError as exc:
            raise ControlSocketTaken(
                f"cannot use the control socket {path}: {exc.strerror or exc}; {ELSEWHERE}"
            ) from None

    @classmethod
    def take_over(cls, handed: HandedSocket) -> "ControlSocket":
        """Go on with the socket of an earlier program of this control."""
        taken = cls.__new__(cls)
        taken.path, taken._made_directory = str(handed.address.path), handed.made_directory
        taken._identity = _pair(handed.identity)
        taken.sock = taken_socket(handed.socket_fd)
        return taken

    def hand_on(self) -> HandedSocket:
        return HandedSocket(Address(path=self.path), self.sock.fileno(), self._identity or (), self._made_directory)

    def close(self) -> None:
        if _identity(self.path) == self._identity:
            os.unlink(self.path)
        self.sock.close()
        if self._made_directory is not None:
            with contextlib.suppress(OSError):  # another program uses it by now
                os.rmdir(self._made_directory)


def peer(sock: HasOptions) -> tuple[int, int]:
    """The pid and uid of the other end. For a socket that we connected these are of the program that listens."""
    pid, uid, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return pid, uid


def _clear(path: str) -> None:
    """Remove a stale socket. Raises ControlSocketTaken when a program answers, or when the file is no socket."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ControlSocketTaken(f"cannot use the control socket {path}: a file that is not a socket is in the way")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as asking:
        try:
            asking.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            os.unlink(path)
            return
        except BlockingIOError:  # its queue is full, so a program listens
            raise ControlSocketTaken(f"another lbproxy holds the control socket {path}") from None
        pid, _ = peer(asking)
    raise ControlSocketTaken(f"another lbproxy (pid {pid}) holds the control socket {path}")


def _listening(path: str, group: str | None) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # The umask and not a chmod after bind: before the chmod any user could connect. No other thread runs yet that the
    # umask could affect.
    mask = os.umask(0o177)
    try:
        sock.bind(path)
        if group is not None:
            os.chown(path, -1, grp.getgrnam(group).gr_gid)
            os.chmod(path, 0o660)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    finally:
        os.umask(mask)
    return sock


def _pair(identity: tuple[int, ...]) -> tuple[int, int] | None:
    return (identity[0], identity[1]) if len(identity) == 2 else None


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
