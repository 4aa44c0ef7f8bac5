"""The files that ACME challenges are served from (RFC 8555, 8.3): DIR/TOKEN, or where certbot --webroot puts them.

Knows a directory and a token. No path leads out of the directory: a token has no separator, and below the directory no
symlink is followed.
"""

import os
import re
import stat

MOST_BYTES = 4096  # a key authorization has about 90
WEBROOT = (".well-known", "acme-challenge")
_token = re.compile(rb"[-_A-Za-z0-9]{1,256}").fullmatch  # base64url, RFC 8555, 8.1
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def read_challenge(directory: str, token: bytes) -> bytes | None:
    """The content of the file; None where there is none that may be served. Reads from the disk."""
    if not _token(token):
        return None
    name = token.decode("ascii")
    for below in ((), WEBROOT):
        try:
            found = _read(directory, (*below, name))
        except OSError:
            continue
        if found is not None:
            return found
    return None


def _read(directory: str, parts: tuple[str, ...]) -> bytes | None:
    *folders, name = parts
    fd = os.open(directory, _DIRECTORY)
    try:
        for folder in folders:
            above, fd = fd, os.open(folder, _DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
            os.close(above)
        file = os.open(name, _FILE, dir_fd=fd)
    finally:
        os.close(fd)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            return None
        content = os.read(file, MOST_BYTES + 1)
    finally:
        os.close(file)
    return content if len(content) <= MOST_BYTES else None
