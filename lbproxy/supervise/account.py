"""Who a backend runs as. Knows the user database and nothing else."""

import os
import pwd
from dataclasses import dataclass

from lbproxy.errors import LbproxyError


class CannotStart(LbproxyError):
    """A process cannot be started. The message is one line for the operator."""


@dataclass(frozen=True, slots=True)
class Account:
    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def account_of(user: str | None) -> Account | None:
    """The account called `user` (or with that uid); None: as lbproxy. Raises CannotStart."""
    if user is None:
        return None
    try:
        entry = pwd.getpwuid(int(user)) if user.isdigit() else pwd.getpwnam(user)
    except (KeyError, OverflowError):
        raise CannotStart(f"user unknown: {user!r}") from None
    if os.geteuid() != 0:
        if entry.pw_uid == os.geteuid():
            return None
        raise CannotStart(f"cannot run as {user!r}: lbproxy does not run as root")
    groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, groups, entry.pw_dir)
