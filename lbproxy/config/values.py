"""The single values of the file, each read by one function: a value of TOML in, a value of settings.py out.

A ValueError names the expected value, the given one, and the right spelling if it can be guessed. No positions and no
files: each value is checked by itself; checks.py compares values with each other.
"""

import ipaddress
import re
import shlex
from collections.abc import Callable
from typing import Literal

from lbproxy.address import Address
from lbproxy.config.problems import nearest, shown
from lbproxy.wire.forwarded import UNIX
from lbproxy.wire.lines import check_host
from lbproxy.wire.upgrades import is_protocol, never_passes

STOP_SIGNALS = {"HUP": 1, "INT": 2, "QUIT": 3, "KILL": 9, "USR1": 10, "USR2": 12, "TERM": 15, "WINCH": 28}
MOST_PROCESSES = 1000  # of one pool, and workers
TOKEN_BYTES = 16  # of [admin] at least
ADMIN_PATHS = ("/", "/livez", "/readyz", "/metrics", "/v1/status", "/v1/events")
PLACEHOLDERS = ("port", "host", "socket", "fd", "slot", "generation")

_OF_THE_PROBE = ("host", "connection", "content-length", "transfer-encoding", "te", "upgrade", "expect")
_ADDRESS = "expected host:port, :port, [v6]:port or unix:/path"
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
_MODE = re.compile(r"0?[0-7]{3}", re.ASCII)
_BRACES = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?")
_STATUS_RANGE = re.compile(r"\s*([1-5]\d\d)\s*(?:-\s*([1-5]\d\d)\s*)?", re.ASCII)
_PORT_RANGE = re.compile(r"(\d{1,5})\s*-\s*(\d{1,5})", re.ASCII)


def text(value: object) -> str:
    """Any string that the system can be given."""
    if not isinstance(value, str):
        plain = isinstance(value, int | float) and not isinstance(value, bool)
        raise _wrong("a string", value, f'"{value}"' if plain else "")
    if "\0" in value:
        raise ValueError("a NUL byte cannot stand here")
    return value


def filled(value: object) -> str:
    """A string that is not empty: a path, a name."""
    if not text(value):
        raise ValueError("must not be empty")
    return str(value)


def label(value: object) -> str:
    """A name that goes into header fields, log lines and metrics."""
    name = filled(value)
    if len(name) > 100 or not name.isascii() or not name.isprintable() or set(name) & set('"\\ '):
        raise _wrong("up to 100 visible ASCII characters without quotes, backslashes and spaces", value)
    return name


def variable(value: object) -> str:
    """The name of an environment variable."""
    name = filled(value)
    if "=" in name:
        raise _wrong("the name of an environment variable", value)
    return name


def whole(low: int, high: int | None = None) -> Callable[[object], int]:
    """A reader of whole numbers from `low` to `high`."""
    expected = f"a whole number, at least {low}" if high is None else f"a whole number from {low} to {high}"

    def read(value: object) -> int:
        if type(value) is int and low <= value and (high is None or value <= high):
            return value
        digits = isinstance(value, str) and value.isascii() and value.isdigit() and low <= int(value[:9])
        raise _wrong(expected, value, str(value) if digits else "")

    return read


def count_or_auto(value: object) -> int | Literal["auto"]:
    """A number of processes; "auto" is one per CPU."""
    if value == "auto":
        return "auto"
    try:
        return whole(1, MOST_PROCESSES)(value)
    except ValueError as exc:
        raise ValueError(str(exc).replace(", got", ' or "auto", got', 1)) from None


def words(value: object) -> list[str]:
    """A command: a string of shell words, or a list of strings. Placeholders stay in."""
    if isinstance(value, str):
        try:
            command = shlex.split(text(value))
        except ValueError as exc:
            raise ValueError(f"cannot be split into words: {str(exc).lower()}") from None
    elif isinstance(value, list):
        command = [text(word) for word in value]
    else:
        raise _wrong("a string or a list of strings", value)
    if not command or not command[0]:
        raise ValueError("is empty")
    return command


def placeholders(word: str) -> list[str]:
    """The names in braces in a word of a command; `{{` and `}}` stand for braces."""
    names = []
    for found in _BRACES.finditer(word):
        if found[1] is not None:
            if found[1] not in PLACEHOLDERS:
                known = [f"{{{name}}}" for name in PLACEHOLDERS]
                hint = nearest(found[0], known) or f" (there is {' '.join(known)}; a brace is written {{{{ or }}}})"
                raise ValueError(f"unknown placeholder {found[0]}{hint}")
            names.append(found[1])
        elif len(found[0]) == 1:
            raise ValueError(f"a single '{found[0]}' in {shown(word)} (a brace itself is written '{found[0] * 2}')")
    return names


def address(value: object) -> Address:
    """Where a listener listens."""
    if not isinstance(value, str):
        raise _wrong(
            _ADDRESS.removeprefix("expected "), value, f'":{value}"' if type(value) is int and 0 < value < 65536 else ""
        )
    try:
        where = Address.parse(text(value))
    except ValueError as exc:
        better = _better_address(value)
        told = str(exc) if better is None else _ADDRESS
        hint = f' (write "{better}")' if better else ""
        raise ValueError(f"{told}, got {shown(value)}{hint}") from None
    if where.path is None and where.passed is None:
        if where.host and not _is_host(where.host):
            better = _better_address(value)
            hint = f' (write "{better}")' if better else ""
            raise ValueError(f"{shown(where.host)} is neither an IP address nor a host name{hint}")
        if where.port == 0:
            raise ValueError(f"expected a port from 1 to 65535, got {shown(value)}")
    return where


def _better_address(value: str) -> str | None:
    """The address that was probably meant, if one was."""
    rest, unix = value, value
    if "://" in value:
        scheme, _, rest = value.partition("://")
        rest, unix = rest.partition("/")[0], f"unix:{rest}" if scheme == "unix" else ""
        if ":" not in rest.rpartition("]")[2]:
            rest += {"http": ":80", "https": ":443"}.get(scheme, "")
    elif value.startswith("/"):
        unix = f"unix:{value}"
    host, colon, port = rest.rpartition(":")
    if rest.isascii() and rest.isdigit():
        host, colon, port = "", ":", rest
    elif not colon and rest and _is_host(rest):
        host, colon, port = rest, ":", "8080"
    elif ":" in host and not host.startswith("["):
        host = f"[{host}]"
    elif host == "*":
        host = ""
    for meant in (unix, f"{host}:{port}", f"[{rest}]:8080"):
        try:
            where = Address.parse(meant)
        except ValueError:
            continue
        if (
            rest
            and meant != value
            and (where.path is not None or (where.port and (not where.host or _is_host(where.host))))
        ):
            return meant
    return None


def bound_address(value: object) -> Address:
    """An address that lbproxy binds itself."""
    where = address(value)
    if where.passed is not None:
        raise ValueError(f"only a listener can use a passed socket, got {shown(value)}")
    return where


def network(value: object) -> str:
    """ "10.0.0.0/8" or one address, as a network in CIDR form."""
    try:
        return str(ipaddress.ip_network(text(value)))
    except ValueError:
        pass
    try:
        better = str(ipaddress.ip_network(text(value), strict=False))
    except ValueError:
        raise _wrong("a network such as 10.0.0.0/8 or an IP address", value) from None
    raise ValueError(f'{shown(value)} has bits set behind its prefix (write "{better}")')


def trusted_proxy(value: object) -> str:
    """A network, or "unix"."""
    return UNIX if value == UNIX else network(value)


def file_mode(value: object) -> int:
    """ "0660": the permissions of a file."""
    if isinstance(value, str) and _MODE.fullmatch(value):
        return int(value, 8)
    raise _wrong(
        'permissions in octal digits such as "0660"', value, f'"0{value}"' if _MODE.fullmatch(str(value)) else ""
    )


def statuses(value: object) -> tuple[tuple[int, int], ...]:
    """ "200-399" or "200,204": ranges, both ends included."""
    expected = 'status codes such as "200-399" or "200,204"'
    if not isinstance(value, str):
        raise _wrong(expected, value, f'"{value}"' if type(value) is int and 100 <= value <= 599 else "")
    ranges = []
    for part in value.split(","):
        found = _STATUS_RANGE.fullmatch(part)
        if found is None or int(found[1]) > int(found[2] or found[1]):
            raise _wrong(expected, value)
        ranges.append((int(found[1]), int(found[2] or found[1])))
    return tuple(ranges)


def port_range(value: object) -> tuple[int, int]:
    """ "20000-29999": first and last port."""
    found = _PORT_RANGE.fullmatch(value) if isinstance(value, str) else None
    if found is None or not 1024 <= int(found[1]) <= int(found[2]) <= 65535:
        raise _wrong('a range of ports from 1024 to 65535 such as "20000-29999"', value)
    return int(found[1]), int(found[2])


def surge(value: object) -> tuple[int, bool]:
    """A number of backends, or a percentage of the pool's size: (50, True)."""
    if type(value) is int and value >= 1:
        return value, False
    found = re.fullmatch(r"(\d{1,3})(%?)", value, re.ASCII) if isinstance(value, str) else None
    if found is not None and found[2] and 1 <= int(found[1]) <= 100:
        return int(found[1]), True
    better = found[1] if found is not None and not found[2] and int(found[1]) else ""
    raise _wrong('a whole number, at least 1, or a percentage such as "100%"', value, better)


def percentage(value: object) -> int:
    found = re.fullmatch(r"(\d{1,3})%", value, re.ASCII) if isinstance(value, str) else None
    if found is None or not 1 <= int(found[1]) <= 100:
        raise _wrong('a percentage from "1%" to "100%"', value)
    return int(found[1])


def stop_signal(value: object) -> int:
    """The signal's number; "SIGTERM" is understood too."""
    if isinstance(value, str) and value.removeprefix("SIG") in STOP_SIGNALS:
        return STOP_SIGNALS[value.removeprefix("SIG")]
    *names, last = STOP_SIGNALS
    raise _wrong(f"{', '.join(names)} or {last}", value)


def close_code(value: object) -> int:
    """A WebSocket close code that a server that goes away may send (RFC 6455, 7.4)."""
    if type(value) is int and (value in (1001, 1012) or 3000 <= value <= 4999):
        return value
    raise _wrong("1001, 1012 or a number from 3000 to 4999", value)


def close_reason(value: object) -> str:
    """A text of at most 123 bytes: with the code it must fit into a control frame (RFC 6455, 5.5)."""
    length = len(text(value).encode())
    if length > 123:
        raise ValueError(f"expected at most 123 bytes, got {length}")
    return str(value)


def hash_key(value: object) -> str:
    """The input of `balance = "hash"`."""
    key = text(value)
    kind, colon, name = key.partition(":")
    if key in ("client_ip", "path") or (kind in ("header", "cookie") and colon and _TOKEN.fullmatch(name)):
        return key
    raise _wrong("client_ip, path, header:NAME or cookie:NAME", value)


def upgrade(value: object) -> str:
    """A protocol of the field Upgrade (RFC 9110, 7.8), in lower case."""
    token = filled(value).lower()
    if not token.isascii() or not is_protocol(token.encode()):
        raise _wrong('a protocol such as "websocket"', value)
    if never_passes(token.encode()):
        raise ValueError(f"{shown(value)} never passes: what is said behind it would escape every check of lbproxy")
    return token


def cookie_name(value: object) -> str:
    """A token (RFC 6265, 4.1.1)."""
    if isinstance(value, str) and _TOKEN.fullmatch(value):
        return value
    raise _wrong("the name of a cookie: letters, digits and !#$%&'*+-.^_`|~", value)


def route_host(value: object) -> str:
    """A host name as requests have it, in lower case and without a port."""
    host = filled(value).lower()
    if not _is_host(host.removeprefix("[").removesuffix("]")):
        raise _wrong('a host name such as "api.example.com", without scheme, port or wildcard', value)
    return host


def route_path(value: object) -> str:
    """The beginning of a path."""
    path = filled(value)
    if not path.startswith("/") or not path.isascii() or not path.isprintable() or set(path) & set(" ?#"):
        raise _wrong('the beginning of a path such as "/v1/"', value)
    return path


def probe_path(value: object) -> str:
    """A request target for probes; it may have a query."""
    path = filled(value)
    if not path.startswith("/") or not path.isascii() or not path.isprintable() or set(path) & set(" #"):
        raise _wrong('a path such as "/healthz"', value)
    return path


def admin_path(value: object) -> str:
    """A path that [admin] answers."""
    path = filled(value)
    if path not in ADMIN_PATHS:
        raise ValueError(f"expected {', '.join(ADMIN_PATHS[:-1])} or {ADMIN_PATHS[-1]}, got {shown(value)}")
    return path


def probe_host(value: object) -> str:
    """The Host field of a probe: a host name or an address, with a port or without."""
    host = filled(value)
    try:
        check_host(host.encode("ascii"))
    except ValueError:
        raise _wrong('a host name such as "app.example.com", with a port or without', value) from None
    return host


def probe_headers(value: object) -> tuple[tuple[str, str], ...]:
    """Further fields of a probe, by name. Fields that frame or route the request are refused."""
    if not isinstance(value, dict):
        raise _wrong('a table such as { X-Probe = "1" }', value)
    for name, text_ in value.items():
        if not _TOKEN.fullmatch(name):
            raise ValueError(f"{shown(name)} is not the name of a header field (RFC 9110, 5.1)")
        if name.lower() in _OF_THE_PROBE:
            written = " (write host = …)" if name.lower() == "host" else ""
            raise ValueError(f"{shown(name)} is a field that the probe sets itself{written}")
        plain = text(text_)
        if not plain.isprintable() or not plain.isascii() or plain != plain.strip():
            raise ValueError(f"the value of {name} holds what a header field cannot, got {shown(text_)}")
    return tuple((name, str(text_)) for name, text_ in value.items())


def truth(value: object) -> bool:
    if isinstance(value, bool):
        return value
    better = value.lower() if isinstance(value, str) and value.lower() in ("true", "false") else ""
    raise _wrong("true or false", value, better)


def _is_host(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        looks_numeric = not host.replace(".", "").strip("0123456789")
        return bool(_HOST_NAME.fullmatch(host)) and not looks_numeric
    return True


def _wrong(expected: str, value: object, better: str = "") -> ValueError:
    return ValueError(f"expected {expected}, got {shown(value)}{f' (write {better})' if better else ''}")
