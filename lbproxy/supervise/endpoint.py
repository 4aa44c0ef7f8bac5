"""The endpoint of a backend: a port, a unix socket in a private directory, or an inherited socket.

Does not know processes. Each process has an endpoint of its own: its successor gets another.
"""

import contextlib
import fcntl
import itertools
import os
import shutil
import socket
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from lbproxy.address import Address
from lbproxy.config.user import User
from lbproxy.supervise.launch import FD
from lbproxy.supervise.ports import NoFreePort, Ports

HOST = "127.0.0.1"
BACKEND_BACKLOG = 2048
PREFIX = "lbproxy-"  # of the directory that holds the unix sockets of one control
LOCK = "owner"  # a file in that directory. Control keeps it locked: if it can be locked, its control is gone


@dataclass(slots=True)
class Endpoint:
    """`values` fill the placeholders of the command, `env` goes into the environment."""

    address: Address
    values: dict[str, str]
    env: dict[str, str]
    port: int | None = None  # held until `give_back`
    directory: str | None = None  # of a unix socket
    listener: socket.socket | None = None  # bind = "fd": our copy, until the process has its own

    def close_listener(self) -> None:
        """Close our copy. While it is open a connect succeeds, even if the backend is dead."""
        if self.listener is not None:
            self.listener.close()
            self.listener = None


@dataclass(slots=True)
class Endpoints:
    """Hands out endpoints and takes them back. `close` removes the directory of the unix sockets."""

    ports: Ports
    _base: Path | None = None
    _lock: int = -1
    _numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    def take(self, bind: str, name: str, user: User | None) -> Endpoint:
        """`name`: the name of a socket file. Raises NoFreePort or OSError."""
        if bind == "unix":
            return self._take_path(name, user)
        if bind == "fd":
            return self._take_listener(name)
        port = self.ports.take()
        values = {"port": str(port), "host": HOST}
        return Endpoint(Address(HOST, port), values, {"PORT": str(port), "HOST": HOST}, port=port)

    def give_back(self, endpoint: Endpoint) -> None:
        endpoint.close_listener()
        if endpoint.port is not None:
            self.ports.give_back(endpoint.port)
        if endpoint.directory is not None:
            shutil.rmtree(endpoint.directory, ignore_errors=True)

    def close(self) -> None:
        if self._base is not None:
            shutil.rmtree(self._base, ignore_errors=True)
            os.close(self._lock)
            self._base = None

    def _take_path(self, name: str, user: User | None) -> Endpoint:
        if self._base is None:
            parent = _parent() or tempfile.gettempdir()
            remove_stale(parent)
            self._base, self._lock = _new_base(parent)
        directory = self._base / str(next(self._numbers))
        directory.mkdir(mode=0o700)
        if user is not None and user.uid != os.geteuid():
            os.chown(directory, user.uid, user.gid)
        room_for_name = 107 - len(os.fsencode(directory)) - 1
        path = str(directory / name.encode()[:room_for_name].decode(errors="ignore"))
        return Endpoint(Address(path=path), {"socket": path}, {"LBPROXY_SOCKET": path}, directory=str(directory))

    def _take_listener(self, name: str) -> Endpoint:
        values = {"fd": str(FD)}
        # launch.py sets LISTEN_PID: no other process knows the pid before the spawn.
        env = {"LISTEN_FDS": "1", "LISTEN_FDNAMES": name.partition(".")[0]}
        while True:
            port = self.ports.take()
            listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            try:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind((HOST, port))
                listener.listen(BACKEND_BACKLOG)
            except OSError:  # taken by another program in the meantime
                listener.close()
                self.ports.give_back(port)
                continue
            return Endpoint(Address(HOST, port), values, env, port=port, listener=listener)


def remove_stale(parent: str) -> None:
    """Remove the directories of killed controls."""
    for name in os.listdir(parent):
        path = os.path.join(parent, name)
        if not name.startswith(PREFIX) or os.path.islink(path):
            continue
        with contextlib.suppress(OSError):
            if os.stat(path).st_uid != os.geteuid():
                continue
            lock = os.open(os.path.join(path, LOCK), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)


def _new_base(parent: str) -> tuple[Path, int]:
    """The directory, and the descriptor that holds its lock."""
    base = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    try:
        base.chmod(0o711)  # other users may pass through (a backend may run as one), and may not list it
        lock = os.open(base / f"{LOCK}.new", os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.rename(base / f"{LOCK}.new", base / LOCK)  # a lock file is never visible unlocked
    except BaseException:
        shutil.rmtree(base, ignore_errors=True)
        raise
    return base, lock


def _parent() -> str | None:
    """The directory for sockets; None: that of temporary files.

    Never XDG_RUNTIME_DIR for root, because its backends may run as another user.
    """
    choices = ["/run"] if os.geteuid() == 0 else [os.environ.get("XDG_RUNTIME_DIR", "")]
    for choice in choices:
        with contextlib.suppress(OSError):
            if choice and len(choice) < 40 and os.access(choice, os.W_OK | os.X_OK) and os.path.isdir(choice):
                return choice
    return None


__all__ = ["FD", "HOST", "Endpoint", "Endpoints", "NoFreePort"]
