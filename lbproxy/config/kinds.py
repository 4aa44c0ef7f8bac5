"""The kinds of values that the file has: what each looks like, for people and for editors, and how it is written.

Attached to the types of schema.py. Knows neither pydantic nor which keys there are; values.py and units.py read.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lbproxy.config import units
from lbproxy.config.values import ADMIN_PATHS, STOP_SIGNALS, TOKEN_BYTES
from lbproxy.settings import Secret

NO_LIMIT = 2**62  # the setting where the file says 0: no code has to know that there is no limit


def _as_it_is(value: Any) -> Any:
    return value


def _number(value: int) -> int:
    return 0 if value == NO_LIMIT else value


def _size(value: int) -> str:
    return units.size_text(_number(value))


def _statuses(ranges: tuple[tuple[int, int], ...]) -> str:
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def _signal(number: int) -> str:
    return next(name for name, known in STOP_SIGNALS.items() if known == number)


def _secret(secret: Secret) -> str:
    return "hidden" if secret.variable is None else f"env:{secret.variable}"


@dataclass(frozen=True, slots=True, eq=False)  # Annotated wants a hash, and a dict has none
class Kind:
    """`words`: as `lbproxy explain` says it. `json`: its JSON Schema. `written`: a setting as the file writes it."""

    words: str
    json: dict[str, Any]
    example: Any
    written: Callable[[Any], Any] = _as_it_is


@dataclass(frozen=True, slots=True, eq=False)
class Facts:
    """Facts of one key that its type does not have.

    `unset`: the default in words, where it depends on the machine or on other keys. `applies`: as in table.Table.
    """

    example: Any = None
    unset: str | None = None
    applies: str | None = None


def _text(words: str, example: str, pattern: str = "", written: Callable[[Any], Any] = _as_it_is) -> Kind:
    return Kind(words, {"type": "string", **({"pattern": pattern} if pattern else {})}, example, written)


def _whole(low: int) -> Kind:
    return Kind(f"a whole number, at least {low}", {"type": "integer", "minimum": low}, 100, _number)


_DURATION = r"^\d+(\.\d+)?(ms|s|m|h|d)$"
_SIZE = r"^\d+(\.\d+)?(B|kB|KB|KiB|MB|MiB|GB|GiB|TB|TiB)?$"

TEXT = _text("a string", "web")
LABEL = _text("a name: up to 100 visible ASCII characters", "edge-1", r"^[!-~]{1,100}$")
PATH = _text("a path, relative to the directory of the file", "run/lb", "^.+$")
DURATION = _text('a duration such as "250ms", "30s", "5m", "1h" or "7d"', "30s", _DURATION, units.duration_text)
SIZE = _text('a size such as "512B", "16KiB" or "1MB"; "0" has no unit', "64KiB", _SIZE, _size)
NATURAL = _whole(0)
POSITIVE = _whole(1)
PROCESSES = Kind(
    'a whole number from 1 to 1000, or "auto": one for each CPU',
    {"oneOf": [{"type": "integer", "minimum": 1, "maximum": 1000}, {"const": "auto"}]},
    4,
)
COMMAND = Kind(
    "a string of shell words, or a list of strings",
    {"oneOf": [{"type": "string", "minLength": 1}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]},
    "uvicorn app:app --port {port}",
    list,
)
PEM_FILE = _text("a path, relative to the directory of the file", "cert.pem", "^.+$")
CERTIFICATE_FILES = Kind(
    'a table such as { cert = "cert.pem", key = "key.pem" }',
    {
        "type": "object",
        "properties": {"cert": PEM_FILE.json, "key": PEM_FILE.json},
        "required": ["cert", "key"],
        "additionalProperties": False,
    },
    {"cert": "cert.pem", "key": "key.pem"},
    lambda files: {"cert": files.cert, "key": files.key},
)
PORTS = _text(
    'a range of ports such as "20000-29999"', "20000-29999", r"^\d+\s*-\s*\d+$", lambda ports: f"{ports[0]}-{ports[1]}"
)
LISTEN = _text(
    'an address: "host:port", ":port", "[v6]:port", "unix:/path" or "fd:NAME" (a socket of systemd)', ":8080", "", str
)
BOUND = _text('an address: "host:port", ":port", "[v6]:port" or "unix:/path"', "127.0.0.1:9901", "", str)
TARGET = _text('an address: "host:port", "[v6]:port", "https://host:port" or "unix:/path"', "127.0.0.1:9000", "", str)
SERVER_NAME = _text("a host name, or an IP address", "app.internal")
TRUSTED_PROXY = _text('a network, an IP address, or "unix": the peers of a unix listener', "10.0.0.0/8")
FILE_MODE = _text('permissions in octal digits such as "0660"', "0660", "^0?[0-7]{3}$", lambda mode: f"0{mode:03o}")
HOST = _text("a host name, without scheme, port or wildcard", "api.example.com")
ROUTE_PATH = _text("the beginning of a path", "/v1/", "^/")
PROBE_PATH = _text("a path; it may have a query", "/healthz", "^/")
PROBE_HOST = _text("a host name, with a port or without", "app.example.com")
STATUSES = _text('status codes such as "200-399" or "200,204"', "200-299", r"^[\d\s,-]+$", _statuses)
HEADERS = Kind(
    "a table of header fields",
    {"type": "object", "additionalProperties": {"type": "string"}},
    {"X-Probe": "1"},
    dict,
)
TRUTH = Kind("true or false", {"type": "boolean"}, False)
SURGE = Kind(
    'a whole number, at least 1, or a percentage of the pool\'s size such as "100%"',
    {"oneOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": r"^[1-9]\d{0,2}%$"}]},
    2,
)
PERCENTAGE = _text('a percentage such as "50%"', "30%", r"^([1-9]\d?|100)%$", lambda value: f"{value}%")
CLOSE_CODE = Kind(
    "1001, 1012 or a number from 3000 to 4999",
    {"oneOf": [{"enum": [1001, 1012]}, {"type": "integer", "minimum": 3000, "maximum": 4999}]},
    1012,
)
CLOSE_REASON = _text("a string of at most 123 bytes", "new version")
SIGNAL = Kind(
    "the name of a signal: " + ", ".join(STOP_SIGNALS),
    {"enum": [*STOP_SIGNALS, *(f"SIG{name}" for name in STOP_SIGNALS)]},
    "QUIT",
    _signal,
)
ADMIN_PATH = Kind("one of " + ", ".join(ADMIN_PATHS), {"enum": [*ADMIN_PATHS]}, "/metrics")
TOKEN = _text(
    f'at least {TOKEN_BYTES} bytes of visible ASCII as they are, "env:NAME" or "file:PATH"',
    "env:ADMIN_TOKEN",
    "",
    _secret,
)
_ELSEWHERE = 'as it is, "env:NAME" or "file:PATH"'
SECRET = _text(f"visible ASCII {_ELSEWHERE}", "env:HOOK_SECRET", "", _secret)
WEBHOOK_URL = _text(f"a URL that begins with http:// or https:// {_ELSEWHERE}", "env:HOOK_URL", "", _secret)
REDIS_URL = _text(f"a URL that begins with redis://, rediss:// or unix:// {_ELSEWHERE}", "env:REDIS_URL", "", _secret)
EVENT_PATTERN = _text('the name of an event, or a pattern such as "reload.*"', "reload.*", r"^[a-z_.*?]+$")
UPGRADE = _text("a protocol as the field Upgrade names it, with a version or without", "websocket", r"^[!-~]+$")
STICKY_KEY = _text(f"visible ASCII {_ELSEWHERE}", "env:STICKY_KEY", "", _secret)
COOKIE = _text("the name of a cookie", "lbproxy", r"^[-!#$%&'*+.^_`|~0-9A-Za-z]+$")
EMAIL = _text("an e-mail address", "ops@example.com", "^[^@]+@[^@]+$")
ACME_SERVER = _text("a URL that begins with https://", "https://acme.example/directory", "^https://")
HASH_KEY = _text(
    "client_ip, path, header:NAME or cookie:NAME", "header:X-User", "^(client_ip|path|(header|cookie):.+)$"
)
