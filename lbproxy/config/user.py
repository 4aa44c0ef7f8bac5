"""A user that backends run as: `www-data`, `1000`, `www-data:adm` or `1000:1000`, as the user database has it.

Knows the user database and the rights of this process, and nothing else.
"""

import grp
import os
import pwd
from dataclasses import dataclass

from lbproxy.privileges import Identity

_SETGID, _SETUID = 6, 7  # capabilities(7), as bits


@dataclass(frozen=True, slots=True)
class User:
    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]  # supplementary ones, the user's own group included
    home: str


def user_of(text: str) -> User:
    """The user called so. A number needs no entry in the database; without one and without a group, its group has the
    same number. Raises ValueError.
    """
    name, colon, group = text.partition(":")
    if not name or (colon and not group):
        raise ValueError(f'expected a name, a number, or both with a group such as "1000:1000", got {text!r}')
    try:
        entry = pwd.getpwuid(int(name)) if _is_number(name) else pwd.getpwnam(name)
    except (KeyError, OverflowError):
        entry = None
    if entry is None and not _is_number(name):
        raise ValueError(f"there is no user {name!r}")
    gid = gid_of(group) if group else int(name) if entry is None else entry.pw_gid
    if entry is None:
        return User(name, int(name), gid, (gid,), "/")
    return User(entry.pw_name, entry.pw_uid, gid, tuple(os.getgrouplist(entry.pw_name, gid)), entry.pw_dir)


def identity_of(text: str | None) -> Identity | None:
    """What a process becomes. None: it stays what it is. Raises ValueError."""
    if text is None:
        return None
    user = user_of(text)
    return Identity(user.uid, user.gid)


def why_not(user: User) -> str | None:
    """Why this process cannot start another one as `user`; None: it can."""
    if (user.uid, user.gid) == (os.geteuid(), os.getegid()) or _may_change_users():
        return None
    me = pwd.getpwuid(os.geteuid()).pw_name if _has_entry(os.geteuid()) else str(os.geteuid())
    return f"cannot run as {user.name!r}: lbproxy runs as {me!r}, and only root may change users"


def gid_of(group: str) -> int:
    """Raises ValueError."""
    if _is_number(group):
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise ValueError(f"there is no group {group!r}") from None


def _is_number(text: str) -> bool:
    """A number that a user or a group can have: 2**32 - 1 means "no change" to setuid(2)."""
    return text.isascii() and text.isdigit() and int(text[:12]) < 2**32 - 1


def why_not_group(group: str) -> str | None:
    """Why this process cannot give a file of its own to `group`; None: it can."""
    try:
        gid = gid_of(group)
    except ValueError as exc:
        return str(exc)
    if os.geteuid() == 0 or gid == os.getegid() or gid in os.getgroups():
        return None
    return f"lbproxy is not in the group {group!r}, and only root gives files to other groups"


def _has_entry(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _may_change_users() -> bool:
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            effective = next(int(line.split()[1], 16) for line in status if line.startswith("CapEff:"))
    except (OSError, StopIteration, ValueError):
        return os.geteuid() == 0
    return bool(effective >> _SETUID & 1 and effective >> _SETGID & 1)
