"""The targets of a pool as the file writes them: host:port, https://host:port, unix:/path.

A ValueError names what was expected and what was given, as in values.py.
"""

from dataclasses import replace

from lbproxy.address import Address
from lbproxy.config.problems import shown
from lbproxy.config.values import address, bound_address, filled

_HTTPS = "https://"


def target(value: object) -> Address:
    """The fixed address of a backend."""
    if isinstance(value, str) and value.startswith(_HTTPS):
        return replace(_secure_target(value), secure=True)
    if isinstance(value, str) and value.lower().startswith(_HTTPS):
        better = _HTTPS + value[len(_HTTPS) :]
        raise ValueError(f'expected https:// in lower case, got {shown(value)} (write "{better}")')
    where = bound_address(value)
    if where.path is None and not where.host:
        raise ValueError(f'a target needs a host, got {shown(value)} (write "127.0.0.1{value}")')
    return where


def _secure_target(value: str) -> Address:
    rest = value.removeprefix(_HTTPS)
    if rest.endswith("/") and rest.count("/") == 1:
        raise ValueError(f'a target has no path, got {shown(value)} (write "{value[:-1]}")')
    if set(rest) & set("/?#@"):
        raise ValueError(f"expected https://host or https://host:port without a path, got {shown(value)}")
    has_port = ":" in rest.rpartition("]")[2]
    where = address(rest if has_port else f"{rest}:443") if rest else None
    if where is None or where.path is not None or where.passed is not None or not where.host:
        raise ValueError(f"expected https://host or https://host:port, got {shown(value)}")
    return where


def server_name(value: object) -> str:
    """The name in a certificate: a host name, or an IP address."""
    name = filled(value).removeprefix("[").removesuffix("]")
    try:
        address(f"[{name}]:1" if ":" in name else f"{name}:1")
    except ValueError:
        raise ValueError(f'expected a host name such as "app.internal", got {shown(value)}') from None
    return name
