"""The endpoint of a backend: a port, a unix socket in a private directory, or an inherited socket.

Does not know processes. Each process has an endpoint of its own: its successor gets another.
"""

import contextlib
import os
import shutil
import socket
import stat
from dataclasses import dataclass

from lbproxy.address import Address
from lbproxy.config.user import User
from lbproxy.privileges import Identity
from lbproxy.supervise.handed_on import HandedDirectory, HandedEndpoint
from lbproxy.supervise.launch import FD
from lbproxy.supervise.ports import NoFreePort, Ports
from lbproxy.supervise.private_directory import PrivateDirectory

HOST = "127.0.0.1"
BACKEND_BACKLOG = 2048


@dataclass(slots=True)
class Endpoint:
    """`values` fill the placeholders of the command, `env` goes into the environment."""

    address: Address
    values: dict[str, str]
    env: dict[str, str]
    port: int | None = None  # held until `give_back`
    directory: str | None = None  # of a unix socket
    listener: socket.socket | None = None  # bind = "fd": our copy, until the process has its own
    is_others: bool = False  # the workers that connect to a unix socket run as another user than its backend

    def hand_on(self) -> HandedEndpoint:
        return HandedEndpoint(self.address, self.port, self.directory, self.is_others)

    def admit_workers(self) -> None:
        """Let workers connect to the socket that the backend has made: only they and the backend can reach it.

        The backend may put anything into its directory, so the path is followed once, and not through a symlink.
        """
        if self.is_others and self.address.path is not None:
            with contextlib.suppress(OSError):  # it is gone again: probes will tell
                file = os.open(self.address.path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    if stat.S_ISSOCK(os.fstat(file).st_mode):
                        os.chmod(f"/proc/self/fd/{file}", 0o666)
                finally:
                    os.close(file)

    def close_listener(self) -> None:
        """Close our copy. While it is open a connect succeeds, even if the backend is dead."""
        if self.listener is not None:
            self.listener.close()
            self.listener = None


@dataclass(slots=True)
class Endpoints:
    """Hands out endpoints and takes them back. `close` removes the directory of the unix sockets."""

    ports: Ports
    worker: Identity | None = None  # what workers become; None: they stay what control is
    _base: PrivateDirectory | None = None
    _next_number: int = 1

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

    def hand_on(self) -> tuple[HandedDirectory | None, int]:
        return None if self._base is None else self._base.hand_on(), self._next_number

    def take_over(self, base: HandedDirectory | None, next_number: int) -> None:
        self._next_number = next_number
        if base is not None:
            self._base = PrivateDirectory.take_over(base)

    def take_over_one(self, handed: HandedEndpoint) -> Endpoint:
        """The endpoint of a process that runs already: what its command and environment were told is not known."""
        if handed.port is not None:
            self.ports.hold(handed.port)
        return Endpoint(handed.address, {}, {}, handed.port, handed.directory, is_others=handed.is_others)

    def close(self) -> None:
        if self._base is not None:
            self._base.close()
            self._base = None

    def _take_path(self, name: str, user: User | None) -> Endpoint:
        if self._base is None:
            self._base = PrivateDirectory.make()
        directory = self._base.path / str(self._next_number)
        self._next_number += 1
        directory.mkdir(mode=0o700)
        uid, gid = (os.geteuid(), os.getegid()) if user is None else (user.uid, user.gid)
        is_others = self.worker is not None and self.worker.uid != uid
        if self.worker is not None and is_others:
            gid = self.worker.gid  # its members may pass through, and list nothing
            directory.chmod(0o710)
        if uid != os.geteuid() or is_others:
            os.chown(directory, uid, gid)
        room_for_name = 107 - len(os.fsencode(directory)) - 1
        path = str(directory / name.encode()[:room_for_name].decode(errors="ignore"))
        values, env = {"socket": path}, {"LBPROXY_SOCKET": path}
        return Endpoint(Address(path=path), values, env, directory=str(directory), is_others=is_others)

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


__all__ = ["FD", "HOST", "Endpoint", "Endpoints", "NoFreePort"]
