"""Checks of the configuration against the machine: directories, files and users that must exist.

The only checks whose result can change while the file stays the same. Works on the document as TOML gave it, like
checks.py.
"""

import grp
import os
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from lbproxy.address import Address
from lbproxy.config.checks import Table, elements, pools
from lbproxy.config.problems import Finding, Path
from lbproxy.config.symlinks import dangling_symlink
from lbproxy.config.user import user_of, why_not, why_not_group

_LONGEST_SOCKET = 107  # bytes of a unix socket's path (unix(7))


def check(document: Table, base: str) -> Iterator[Finding]:
    """`base`: the directory that relative paths start from."""
    for path, pool in pools(document):
        yield from _pool(path, pool, base)
        yield from _authorities(path, pool.get("tls"), base)
        targets = pool.get("targets")
        for number, target in enumerate(targets if isinstance(targets, list) else []):
            yield from _socket((*path, "targets", number), target, base)
    for path, listener in elements(document, "listener"):
        yield from _socket((*path, "address"), listener.get("address"), base)
        if _is_path(listener.get("acme_challenges")):
            yield from _directory((*path, "acme_challenges"), os.path.join(base, listener["acme_challenges"]))
        if _is_path(listener.get("socket_group")) and (why := why_not_group(listener["socket_group"])) is not None:
            yield Finding((*path, "socket_group"), why)
        yield from _acme((*path, "tls", "acme"), listener.get("tls"), base)
    admin = document.get("admin")
    if isinstance(admin, dict):
        yield from _acme(("admin", "tls", "acme"), admin.get("tls"), base)
        yield from _socket(("admin", "address"), admin.get("address"), base)
    events = document.get("events")
    if isinstance(events, dict) and "redis" in events and find_spec("redis") is None:
        yield Finding(("events", "redis"), "needs the package redis: pip install 'lbproxy[redis]'")
    proxy = document.get("proxy")
    if isinstance(proxy, dict) and _is_path(proxy.get("control")):
        yield from _measured(("proxy", "control"), os.path.join(base, proxy["control"]))
    if isinstance(proxy, dict):
        yield from _user(("proxy", "user"), proxy.get("user"))
    if isinstance(proxy, dict) and _is_path(proxy.get("control_group")):
        try:
            grp.getgrnam(proxy["control_group"])
        except KeyError:
            yield Finding(("proxy", "control_group"), f"there is no group {proxy['control_group']!r}")


def _acme(path: Path, tls: object, base: str) -> Iterator[Finding]:
    acme = tls.get("acme") if isinstance(tls, dict) else None
    if not isinstance(acme, dict):
        return
    if any(find_spec(package) is None for package in ("acme", "josepy")):
        yield Finding(path, "needs the packages acme and josepy: pip install 'lbproxy[acme]'")
    if _is_path(acme.get("ca")):
        ca = os.path.join(base, acme["ca"])
        if not os.access(ca, os.R_OK):
            yield Finding((*path, "ca"), f"there is no file {ca!r} that can be read{dangling_symlink(ca)}")


def absolute(base: str, address: Address) -> Address:
    """The address with the path of its unix socket made absolute."""
    return address if address.path is None else Address(path=os.path.join(base, address.path))


def _pool(path: Path, pool: Table, base: str) -> Iterator[Finding]:
    if _is_path(pool.get("directory")):
        yield from _directory((*path, "directory"), os.path.join(base, pool["directory"]))
    if _is_path(pool.get("env_file")):
        env_file = os.path.join(base, pool["env_file"])
        if not os.path.isfile(env_file):
            yield Finding((*path, "env_file"), f"there is no file {env_file!r}{dangling_symlink(env_file)}")
        elif not os.access(env_file, os.R_OK):
            yield Finding((*path, "env_file"), f"{env_file!r} cannot be read")
    yield from _user((*path, "user"), pool.get("user"))


def _user(path: Path, user: Any) -> Iterator[Finding]:
    if _is_path(user):
        try:
            why = why_not(user_of(user))
        except ValueError as exc:
            why = str(exc)
        if why is not None:
            yield Finding(path, why)


def _authorities(path: Path, tls: object, base: str) -> Iterator[Finding]:
    if not isinstance(tls, dict) or not _is_path(tls.get("ca")) or "-----BEGIN" in tls["ca"]:
        return
    file = os.path.join(base, tls["ca"])
    try:
        with open(file, "rb") as opened:
            if b"-----BEGIN CERTIFICATE-----" not in opened.read():
                yield Finding((*path, "tls", "ca"), f"{file!r} holds no certificate in PEM")
    except OSError as exc:
        yield Finding((*path, "tls", "ca"), f"{file!r} cannot be read: {exc.strerror}{dangling_symlink(file)}")


def _directory(path: Path, full: str) -> Iterator[Finding]:
    if not os.path.isdir(full):
        yield Finding(path, f"there is no directory {full!r}{dangling_symlink(full)}")


def _socket(path: Path, address: object, base: str) -> Iterator[Finding]:
    if isinstance(address, str) and address.startswith("unix:"):
        written = address.removeprefix("unix:")
        if len(os.fsencode(written)) <= _LONGEST_SOCKET:  # else the schema says so
            yield from _measured(path, os.path.join(base, written))


def _measured(path: Path, full: str) -> Iterator[Finding]:
    length = len(os.fsencode(full))
    if length > _LONGEST_SOCKET:
        yield Finding(path, f"the path of a unix socket has at most {_LONGEST_SOCKET} bytes, {full!r} has {length}")


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and value != "" and "\0" not in value
