"""Who listens on a port: ours, or a stranger that took it first. Read from /proc. Ready must mean our child.

Blocking (milliseconds): called in a thread, once for each time that a backend becomes ready.
"""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from lbproxy.supervise.session import family, marked

_LISTEN = b"0A"
# How /proc/net/tcp{,6} writes the addresses on which a connect to 127.0.0.1 arrives; the exact ones win.
_EXACT = (b"0100007F", b"0000000000000000FFFF00000100007F")
_ANY = (b"00000000", b"0" * 32)


@dataclass(frozen=True, slots=True)
class Trouble:
    text: str
    stranger: bool  # somebody else has the port; False: nobody has it


def trouble_with(port: int, session: int, mark: str = "") -> Trouble | None:
    """None: every socket that answers on 127.0.0.1:`port` is held by `session`, its descendants, or who carries `mark`,
    as far as we are allowed to see."""
    sockets = listening(port)
    if not sockets:
        return Trouble(f"nobody listens on port {port} any more", stranger=False)
    all_seen = True
    for pid in (*family(session), *marked(mark)):
        held = _sockets_of(pid)
        if held is None:
            all_seen = False  # another user's, and we are not allowed to look
        else:
            sockets -= held
    if not sockets or not all_seen:
        return None
    return Trouble(f"port {port} is held by {_owner_of(sockets)}, not by this backend", stranger=True)


def listening(port: int) -> set[str]:
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
