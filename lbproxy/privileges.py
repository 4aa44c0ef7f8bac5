"""What a process of lbproxy may not do, or let others do: give up a user's rights for good, and keep its memory to
itself.

Linux only. ctypes is the only door of the standard library to prctl(2): Trio has loaded it in processes that serve, and
client commands do without it.
"""

import os
from dataclasses import dataclass
from typing import Self

_PR_SET_DUMPABLE = 4
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_MOST_CAPABILITIES = 64


@dataclass(frozen=True, slots=True)
class Identity:
    """A user and a group, as numbers."""

    uid: int
    gid: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """ "33:33". Raises ValueError."""
        uid, _, gid = text.partition(":")
        return cls(int(uid), int(gid))

    def __str__(self) -> str:
        return f"{self.uid}:{self.gid}"


def hide_memory() -> None:
    """No other process of the same user can read this one's memory, environment or descriptors; and no core is written.

    An exec undoes it.
    """
    _prctl(_PR_SET_DUMPABLE, 0)


def renounce(identity: Identity | None) -> None:
    """Become `identity`, with no other group and no capability, for good. None: the user stays.

    Nothing that this process executes gets more rights than it has. Raises OSError.
    """
    if identity is not None and identity != Identity(os.geteuid(), os.getegid()):
        for capability in range(_MOST_CAPABILITIES):
            if not _prctl(_PR_CAPBSET_DROP, capability):
                break  # the kernel has no more
        os.setgroups([])
        os.setresgid(identity.gid, identity.gid, identity.gid)
        os.setresuid(identity.uid, identity.uid, identity.uid)  # from root: every capability goes with it
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    hide_memory()


def overwrite_variable(name: str) -> None:
    """The value of a variable is no longer in the memory that /proc/PID/environ shows. It is still set: unset it."""
    import ctypes

    getenv = ctypes.CDLL(None).getenv
    getenv.argtypes, getenv.restype = [ctypes.c_char_p], ctypes.c_void_p
    if at := getenv(os.fsencode(name)):
        ctypes.memset(at, 0, len(ctypes.string_at(at)))


def _prctl(option: int, value: int) -> bool:
    import ctypes

    return bool(ctypes.CDLL(None).prctl(option, value, 0, 0, 0) == 0)
