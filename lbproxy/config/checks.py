"""Checks of keys against each other: names without a target, addresses used twice, keys that exclude each other.

Works on the document as TOML gave it, so that its findings and those of the schema come in one run. A value with the
wrong shape is skipped here, and the schema reports it.
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from lbproxy.address import Address
from lbproxy.config import shell_syntax, units, values
from lbproxy.config.problems import Finding, Path, header, nearest, shown
from lbproxy.settings import RestartSettings

T = TypeVar("T")
Table = dict[str, Any]

_POOL_NAME = "abcdefghijklmnopqrstuvwxyz0123456789_-"
# Keys that mean nothing to backends that lbproxy does not start.
FOR_COMMANDS = ("size", "bind", "directory", "env", "env_file", "user", "restart")
_PLACEHOLDER_OF = {"tcp": ("port", "host"), "unix": ("socket",), "fd": ("fd",)}


def check(document: Table) -> Iterator[Finding]:
    """Every mistake that takes two keys to make."""
    yield from _there_is_something(document)
    yield from _pools_are_found(document)
    yield from _listeners_are_distinct(document)
    yield from _listeners_fit_http_and_tls(document)
    yield from _admin_is_guarded(document)
    yield from _sticky_is_http(document)
    for path, pool in pools(document):
        yield from _pool_name(path)
        yield from _pool_is_one_thing(path, pool)
        yield from _command_fits_bind(path, pool)
        yield from _pool_values(path, pool)


def pools(document: Table) -> list[tuple[Path, Table]]:
    """Path and table of each pool."""
    found = document.get("pool")
    named = found.items() if isinstance(found, dict) else ()
    return [(("pool", name), pool) for name, pool in named if isinstance(pool, dict)]


def elements(document: Table, key: str) -> list[tuple[Path, Table]]:
    """Path and table of each [[key]]."""
    found = document.get(key)
    numbered = enumerate(found) if isinstance(found, list) else ()
    return [((key, number), table) for number, table in numbered if isinstance(table, dict)]


def _there_is_something(document: Table) -> Iterator[Finding]:
    if document.get("listener", []) == []:
        message = 'no listener: write [[listener]] and below it address = ":8080"'
        yield Finding((), message, named=False, lacks=("listener",))
    if document.get("pool", {}) == {}:
        message = "no pool: write [pool.web] and below it a command or targets"
        yield Finding((), message, named=False, lacks=("pool",))


def _pools_are_found(document: Table) -> Iterator[Finding]:
    known = [str(path[-1]) for path, _ in pools(document)]
    routes = elements(document, "route")
    for path, table in [*elements(document, "listener"), *routes]:
        name = table.get("pool")
        if isinstance(name, str):
            if name not in known and known:
                others = f" (there is: {', '.join(known)})"
                yield Finding((*path, "pool"), f"no pool is called {shown(name)}{nearest(name, known) or others}")
        elif "pool" not in table and path[0] == "listener" and len(known) > 1 and "redirect" not in table:
            if table.get("mode") == "tcp":
                if not any("host" in route for _, route in routes):  # or SNI decides
                    yield _missing_pool(path, f"a tcp listener needs one when there are several ({', '.join(known)})")
            elif not routes:
                yield _missing_pool(path, f"there are several ({', '.join(known)}) and no route")


def _missing_pool(path: Path, why: str) -> Finding:
    return Finding(path, f"'pool' is missing in {header(path)}: {why}", named=False, at_table=True)


def _listeners_are_distinct(document: Table) -> Iterator[Finding]:
    names: dict[str, Path] = {}
    taken: list[tuple[Address, str, Path]] = []
    for path, table in elements(document, "listener"):
        written = table.get("address")
        name = table.get("name", written)
        if isinstance(name, str):
            if name in names and "name" in table:
                yield Finding((*path, "name"), f"another listener is called {shown(name)} too", see=names[name])
            names.setdefault(name, path)
        if table.get("proxy_protocol") == "accept" and not table.get("trusted_proxies"):
            message = "needs trusted_proxies: only these peers are believed, others are let go of"
            yield Finding((*path, "proxy_protocol"), message)
        where = _read(values.address, written)
        if where is None:
            continue
        for key in ("socket_mode", "socket_group"):
            if key in table and where.path is None:
                yield Finding(
                    (*path, key),
                    f"means something only with an address such as unix:/run/lb.sock, not {shown(written)}",
                )
        for other, spelled, at in taken:
            said = _clash(where, other)
            if said:
                yield Finding((*path, "address"), f"{shown(written)} {said} {shown(spelled)}", see=(*at, "address"))
                break
        taken.append((where, str(written), path))


def _listeners_fit_http_and_tls(document: Table) -> Iterator[Finding]:
    for path, table in elements(document, "listener"):
        for key in ("redirect", "acme_challenges", "hsts", "forwarded"):
            if table.get(key, False) is not False and table.get("mode") == "tcp":
                message = 'means something only for HTTP, and mode is "tcp"'
                yield Finding((*path, key), message, see=(*path, "mode"))
        if "redirect" in table and "tls" in table:
            message = "would send clients in a circle: this listener speaks https itself"
            yield Finding((*path, "redirect"), message, see=(*path, "tls"))
        if "hsts" in table and "tls" not in table and table.get("mode") != "tcp":
            yield Finding((*path, "hsts"), "needs tls: browsers believe it over https only (RFC 6797, 8.1)")


def _admin_is_guarded(document: Table) -> Iterator[Finding]:
    admin = document.get("admin")
    where = _read(values.bound_address, admin.get("address")) if isinstance(admin, dict) else None
    if not isinstance(admin, dict) or where is None:
        return
    at = ("admin", "address")
    if "token" not in admin and not where.is_local:
        yield Finding(at, f"{shown(admin['address'])} is beyond loopback: that needs admin.token")
    for path, table in elements(document, "listener"):
        other = _read(values.address, table.get("address"))
        said = _clash(where, other) if other is not None else ""
        if said:
            yield Finding(at, f"{shown(admin['address'])} {said} {shown(table['address'])}", see=(*path, "address"))


def _sticky_is_http(document: Table) -> Iterator[Finding]:
    modes = {table.get("mode", "http") for _, table in elements(document, "listener")}
    for path, pool in pools(document):
        if "sticky" in pool and modes == {"tcp"}:
            message = 'means something only for HTTP, and every listener has mode = "tcp"'
            yield Finding((*path, "sticky"), message)


def _clash(new: Address, old: Address) -> str:
    """Why both cannot be bound, as the middle of a sentence."""
    if any(one.path is not None or one.passed is not None for one in (new, old)):
        return "is the same address as" if new == old else ""
    if new.port != old.port:
        return ""
    one, two = _host(new.host), _host(old.host)
    if one == two:
        return "is the same address as"
    if _covers(two, one):
        return "is covered by"
    return "covers" if _covers(one, two) else ""


def _host(host: str) -> str:
    return {"localhost": "127.0.0.1", "0:0:0:0:0:0:0:0": "::"}.get(host, host).lower()


def _covers(wide: str, narrow: str) -> bool:
    """Whether both addresses are on one port. An empty host is every address of either family."""
    return wide == "" or (wide == "0.0.0.0" and ":" not in narrow) or (wide == "::" and ":" in narrow)


def _pool_name(path: Path) -> Iterator[Finding]:
    name = str(path[-1])
    if not name or set(name) - set(_POOL_NAME):
        yield Finding(path, f"the name of a pool consists of a-z, 0-9, _ and -, got {shown(name)}", named=False)
    elif name == "access":
        yield Finding(path, "a pool cannot be called 'access': that is what the access log is called", named=False)


def _pool_is_one_thing(path: Path, pool: Table) -> Iterator[Finding]:
    if "command" not in pool and "targets" not in pool:
        message = f"'command' or 'targets' is missing in {header(path)}"
        yield Finding(path, message, named=False, at_table=True, lacks=("command", "targets"))
    elif "command" in pool and "targets" in pool:
        message = "a pool has either a command or targets, not both"
        yield Finding((*path, "targets"), message, see=(*path, "command"))
    elif "targets" in pool:
        if pool["targets"] == []:
            yield Finding((*path, "targets"), "is empty")
        for key in FOR_COMMANDS:
            if key in pool:
                why = "as many as there are targets" if key == "size" else "lbproxy does not start targets"
                yield Finding((*path, key), f"cannot be given together with targets: {why}")


def _command_fits_bind(path: Path, pool: Table) -> Iterator[Finding]:
    bind = pool.get("bind", "tcp")
    health = pool.get("health", {})
    if bind == "fd" and "targets" not in pool and isinstance(health, dict):
        if health.get("active") is False:
            message = 'bind = "fd" needs probes: an inherited socket listens before the backend does'
            yield Finding((*path, "health", "active"), message, see=(*path, "bind"))
        elif "path" not in health and health.get("grpc") is not True:
            message = 'bind = "fd" needs health.path: a connect to an inherited socket always succeeds'
            yield Finding((*path, "bind"), message)
    command = pool.get("command")
    try:
        words = values.words(command)
        shell = shell_syntax.find(command) if isinstance(command, str) else None
    except ValueError:
        return
    at = (*path, "command")
    if shell is not None:
        yield Finding(at, shell)
    try:
        named = {name for word in words for name in values.placeholders(word)}
    except ValueError as exc:
        yield Finding(at, str(exc))
        return
    for kind, names in _PLACEHOLDER_OF.items():
        for name in names:
            if name in named and kind != bind and bind in tuple(_PLACEHOLDER_OF):
                yield Finding(at, f'{{{name}}} has a value only with bind = "{kind}", and bind is "{bind}"')


def _pool_values(path: Path, pool: Table) -> Iterator[Finding]:
    if "hash_key" in pool and pool.get("balance") != "hash":
        balance = pool.get("balance", "least_conn")
        yield Finding(
            (*path, "hash_key"), f'means something only with balance = "hash", and balance is {shown(balance)}'
        )
    if pool.get("balance") == "hash" and _read(units.positive_duration, pool.get("slow_start")) is not None:
        message = 'has no meaning with balance = "hash": equal keys go to the same backend, new or not'
        yield Finding((*path, "slow_start"), message, see=(*path, "balance"))
    env = pool.get("env")
    for name in env if isinstance(env, dict) else ():
        try:
            values.variable(name)
        except ValueError as exc:
            yield Finding((*path, "env", name), str(exc))
    targets = pool["targets"] if isinstance(pool.get("targets"), list) else []
    for number, target in enumerate(targets):
        if isinstance(target, str) and targets.index(target) < number:
            yield Finding((*path, "targets", number), f"{shown(target)} is there twice")
    upgrades = pool["upgrades"] if isinstance(pool.get("upgrades"), list) else []
    tokens = [token.lower() if isinstance(token, str) else token for token in upgrades]
    for number, token in enumerate(upgrades):
        if isinstance(token, str) and token.lower() in tokens[:number]:
            yield Finding((*path, "upgrades", number), f"{shown(token)} is there twice")
    yield from _health_by_grpc(path, pool)
    yield from _target_tls(path, pool, targets)
    yield from _protocol(path, pool, targets)
    yield from _backoff(path, pool)


def _health_by_grpc(path: Path, pool: Table) -> Iterator[Finding]:
    health = pool.get("health")
    if not isinstance(health, dict) or health.get("grpc") is not True:
        return
    at, protocol = (*path, "health", "grpc"), pool.get("protocol", "http/1.1")
    if protocol == "http/1.1":
        yield Finding(at, 'needs protocol = "h2c" (or "h2"): gRPC is spoken over HTTP/2 only')
    if health.get("active") is False:
        yield Finding(at, "means nothing with active = false", see=(*path, "health", "active"))
    for key in ("path", "expect"):
        if key in health:
            yield Finding((*path, "health", key), "means nothing with grpc = true: the call decides", see=at)


def _target_tls(path: Path, pool: Table, targets: list[Any]) -> Iterator[Finding]:
    is_secure = any(isinstance(target, str) and target.startswith("https://") for target in targets)
    if is_secure and pool.get("send_proxy", "off") != "off":
        yield Finding((*path, "send_proxy"), "is not supported with https targets", see=(*path, "targets"))
    tls = pool.get("tls")
    if not isinstance(tls, dict):
        return
    if not is_secure:
        yield Finding((*path, "tls"), 'means something only with targets such as "https://10.0.0.7:443"')
    elif tls.get("verify") is False and "ca" in tls:
        yield Finding((*path, "tls", "ca"), "means nothing with verify = false", see=(*path, "tls", "verify"))


def _protocol(path: Path, pool: Table, targets: list[Any]) -> Iterator[Finding]:
    protocol = pool.get("protocol", "http/1.1")
    if protocol not in ("h2c", "h2"):
        return
    secure = [isinstance(target, str) and target.startswith("https://") for target in targets]
    if protocol == "h2c" and any(secure):
        message = '"h2c" is HTTP/2 without TLS: https targets speak "h2" or "http/1.1"'
        yield Finding((*path, "protocol"), message, see=(*path, "targets", secure.index(True)))
    elif protocol == "h2" and targets and not all(secure):
        message = '"h2" is agreed on over TLS: a target without https:// speaks "h2c" or "http/1.1"'
        yield Finding((*path, "protocol"), message, see=(*path, "targets", secure.index(False)))
    elif protocol == "h2" and "command" in pool:
        message = '"h2" is for https targets: a backend that lbproxy starts speaks "h2c" or "http/1.1"'
        yield Finding((*path, "protocol"), message, see=(*path, "command"))
    if pool.get("send_proxy", "off") != "off":
        message = f"has no place with protocol = {shown(protocol)}: clients share its connections"
        yield Finding((*path, "send_proxy"), message, see=(*path, "protocol"))
    if pool.get("accept_bare_lf"):
        message = f"means nothing with protocol = {shown(protocol)}: HTTP/2 has no such thing"
        yield Finding((*path, "accept_bare_lf"), message, see=(*path, "protocol"))


def _backoff(path: Path, pool: Table) -> Iterator[Finding]:
    restart = pool.get("restart")
    backoff = restart.get("backoff") if isinstance(restart, dict) else None
    if isinstance(backoff, dict):
        default = RestartSettings()
        first = _read(units.duration, backoff.get("first", f"{default.backoff_first_s}s"))
        longest = _read(units.duration, backoff.get("max", f"{default.backoff_max_s}s"))
        if first is not None and longest is not None and first > longest:
            key = "first" if "first" in backoff else "max"
            yield Finding((*path, "restart", "backoff", key), "first is longer than max")


def _read(reader: Callable[[object], T], value: object) -> T | None:
    try:
        return reader(value)
    except ValueError:
        return None
