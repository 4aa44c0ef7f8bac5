"""Who listens on a port: ours, or a stranger that took it first. Read from /proc. Ready must mean our child.

Blocking (milliseconds): called in a thread, once for each time that a backend becomes ready.
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
# How /proc/net/tcp{,6} writes the addresses on which a connect to 127.0.0.1 arrives; the exact ones win.
_EXACT = (b"0100007F", b"0000000000000000FFFF00000100007F")
_ANY = (b"00000000", b"0" * 32)


@dataclass(frozen=True, slots=True)
class PortProblem:
    text: str
    stranger: bool  # somebody else has the port; False: nobody has it


def port_problem(port: int, session: int, mark: str = "") -> PortProblem | None:
    """None: every socket that answers on 127.0.0.1:`port` is held by `session`, its descendants, or who carries `mark`,
    as far as we are allowed to see."""
    sockets = listening_inodes(port)
    if not sockets:
        return PortProblem(f"nobody listens on port {port} any more", stranger=False)
    all_seen = True
    for pid in (*family_pids(session), *marked_pids(mark)):
        held = _sockets_of(pid)
        if held is None:
            all_seen = False  # another user's, and we are not allowed to look
        else:
            sockets -= held
    if not sockets or not all_seen:
        return None
    return PortProblem(f"port {port} is held by {_owner_of(sockets)}, not by this backend", stranger=True)


def listening_inodes(port: int) -> set[str]:
    """The inodes of the sockets that a connect to 127.0.0.1:`port` can reach."""
    by_address: dict[bytes, set[str]] = {}
    wanted = b":%04X " % port
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        # Line by line: on a busy proxy most of it are tens of thousands of connections.
        with contextlib.suppress(OSError), open(table, "rb") as lines:
            for line in lines:
                if wanted in line:
                    words = line.split()
                    if words[3] == _LISTEN and words[1].endswith(wanted[:-1]):
                        by_address.setdefault(words[1][:-5], set()).add(words[9].decode())
    exact = set().union(*(by_address.get(address, set()) for address in _EXACT))
    return exact or set().union(*(by_address.get(address, set()) for address in _ANY))


def listens_on_path(path: str) -> bool:
    """Whether a unix socket at `path` listens."""
    return any(where == path for _, where in _unix_listeners("/proc/net/unix"))


def listening_addresses(session: int, mark: str = "") -> list[str]:
    """Where the processes of `session`, their descendants and those with `mark` listen: "127.0.0.1:8000", "[::1]:8000",
    "unix:/run/app.sock". Empty also where lbproxy may not look.
    """
    found: dict[str, None] = {}
    for pid in sorted({*family_pids(session), *marked_pids(mark)}):
        held = _sockets_of(pid) or set()
        if held:
            net = f"/proc/{pid}/net"  # it may have a network namespace of its own
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
                found.append((words[9].decode(), _spelt(*words[1].decode().split(":"))))
    return found


def _spelt(address: str, port: str) -> str:
    """An address of /proc/net/tcp{,6}, whose words of four bytes are in the machine's order, as people write it."""
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
    """Inodes of the sockets that a process holds; None: not to be seen."""
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
