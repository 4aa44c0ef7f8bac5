"""The files of unix sockets that lbproxy listens on: who may connect.

Knows paths and their permissions; nothing of listeners and workers.
"""

import os
import stat

from lbproxy.config.user import gid_of
from lbproxy.settings import ListenerSettings


def permissions_of(path: str) -> tuple[int, int]:
    """Mode and group of a file that lbproxy has just made."""
    found = os.stat(path)
    return stat.S_IMODE(found.st_mode), found.st_gid


def permit(path: str, settings: ListenerSettings, otherwise: tuple[int, int] | None) -> None:
    """Give the file the mode and the group of the settings, or `otherwise` (None: as they are now).

    The group comes first, so that no other group has the rights of the new one for a moment.
    """
    mode, gid = otherwise or permissions_of(path)
    if settings.socket_mode is not None:
        mode = settings.socket_mode
    if settings.socket_group is not None:
        gid = gid_of(settings.socket_group)
    has_mode, has_gid = permissions_of(path)
    if has_gid != gid:
        os.chmod(path, has_mode & mode)
        os.chown(path, -1, gid)
        has_mode &= mode
    if has_mode != mode:
        os.chmod(path, mode)
