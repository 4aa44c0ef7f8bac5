"""Listening sockets, read from /proc: does the backend itself listen on its port, and where else does it listen?

A backend is ready only if the answers on its port are its own, not those of a program that took the port first.
Blocks for milliseconds: called in a thread, once each time that a backend becomes ready.
"""

import contextlib
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from lbproxy.address import Address
from lbproxy.supervise.session import family_pids, marked_pids

_LISTEN = b"0A"
_ACCEPTS = b"00010000"  # flags of a listening unix socket (__SO_ACCEPTCON)
# The addresses on which a connect to 127.0.0.1 arrives, as in /proc/net/tcp{,6}. The kernel prefers the exact ones.
_EXACT = (b"0100007F", b"0000000000000000FFFF00000100007F")
_ANY = (b"00000000", b"0" * 32)


@dataclass(frozen=True, slots=True)
class PortProblem:
    text: str
    stranger: bool  # another program has the port; False: no program has it


def port_problem(port: int, session: int, mark: str = "") -> PortProblem | None:
    """None if `session`, its descendants or processes with `mark` hold every socket that answers on 127.0.0.1:`port`.

    Also None where another user's process hides its sockets from lbproxy.
    """
    sockets = listening_inodes(port)
    if not sockets:
        return PortProblem(f"no program listens on port {port} any more", stranger=False)
    all_seen = True
    for pid in (*family_pids(session), *marked_pids(mark)):
        held = _sockets_of(pid)
        if held is None:
            all_seen = False  # another user's process: its descriptors are hidden
        else:
            sockets -= held
    if not sockets or not all_seen:
        return None
    sockets &= listening_inodes(port)
    if not sockets:  # the backend has exited between the two looks
        return PortProblem(f"no program listens on port {port} any more", stranger=False)
    return PortProblem(f"port {port} is held by {_owner_of(sockets)}, not by this backend", stranger=True)


def listening_inodes(port: int) -> set[str]:
    """The inodes of the sockets that a connect to 127.0.0.1:`port` can reach."""
    by_address: dict[bytes, set[str]] = {}
    wanted = b":%04X " % port
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        # Read line by line: on a busy proxy the table has tens of thousands of connections.
        with contextlib.suppress(OSError), open(table, "rb") as lines:
            for line in lines:
                if wanted in line:
                    words = line.split()
                    if words[3] == _LISTEN and words[1].endswith(wanted[:-1]):
                        by_address.setdefault(words[1][:-5], set()).add(words[9].decode())
    exact = set().union(*(by_address.get(address, set()) for address in _EXACT))
    return exact or set().union(*(by_address.get(address, set()) for address in _ANY))


def listens_on_path(path: str) -> bool:
    """Whether a unix socket listens at `path`."""
    return any(where == path for _, where in _unix_listeners("/proc/net/unix"))


def listening_addresses(session: int, mark: str = "") -> list[str]:
    """The addresses on which the processes of `session`, their descendants and those with `mark` listen.

    For example "127.0.0.1:8000", "[::1]:8000", "unix:/run/app.sock". Empty also where /proc hides the descriptors.
    """
    found: dict[str, None] = {}
    for pid in sorted({*family_pids(session), *marked_pids(mark)}):
        held = _sockets_of(pid) or set()
        if held:
            net = f"/proc/{pid}/net"  # the process may have a network namespace of its own
            endpoints = [*_tcp_listeners(f"{net}/tcp"), *_tcp_listeners(f"{net}/tcp6")]
            endpoints += [(inode, f"unix:{where}") for inode, where in _unix_listeners(f"{net}/unix")]
            found.update(dict.fromkeys(where for inode, where in endpoints if inode in held))
    return list(found)


def _tcp_listeners(table: str) -> list[tuple[str, str]]:
    """Inode and address of each listening socket."""
    found = []
    with contextlib.suppress(OSError), open(table, "rb") as lines:
        for line in lines:
            words = line.split()
            if len(words) > 9 and words[3] == _LISTEN:
                found.append((words[9].decode(), _notation(*words[1].decode().split(":"))))
    return found


def _notation(address: str, port: str) -> str:
    """An address of /proc/net/tcp{,6} in the usual notation. /proc has words of four bytes in the machine's order."""
    raw = bytes.fromhex(address)
    words = [raw[at : at + 4] for at in range(0, len(raw), 4)]
    packed = b"".join(word[::-1] if sys.byteorder == "little" else word for word in words)
    host = socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)
    return str(Address(host, int(port, 16)))


def _unix_listeners(table: str) -> list[tuple[str, str]]:
    """Inode and path of each listening socket that has a path."""
    found = []
    with contextlib.suppress(OSError), open(table, "rb") as lines:
        for line in lines:
            words = line.rstrip(b"\n").split(None, 7)
            if len(words) == 8 and words[3] == _ACCEPTS:
                found.append((words[6].decode(), os.fsdecode(words[7])))
    return found


def _sockets_of(pid: int) -> set[str] | None:
    """Inodes of the sockets that a process holds; None: they are hidden."""
    found = set()
    try:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(FileNotFoundError):
                target = os.readlink(f"/proc/{pid}/fd/{fd}")
                if target.startswith("socket:["):
                    found.add(target[8:-1])
    except PermissionError:
        return None
    except OSError:
        return set()
    return found


def _owner_of(sockets: set[str]) -> str:
    for name in os.listdir("/proc"):
        if name.isdigit() and (held := _sockets_of(int(name))) and held & sockets:
            with contextlib.suppress(OSError):
                return f"pid {name} ({Path(f'/proc/{name}/comm').read_text().strip()})"
    return "another program"
