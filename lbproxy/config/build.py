"""Build the settings of lbproxy from the tables of the file: defaults of this machine, absolute paths.

Takes tables that passed every check. The plain defaults stand in settings.py.
"""

import os
import re
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

from lbproxy.address import Address
from lbproxy.config import listener_tables, pool_tables, schema
from lbproxy.config.acme_values import certificate_file
from lbproxy.config.cpus import usable_cpus
from lbproxy.config.events_tables import EventsTable, RedisTable, WebhookTable
from lbproxy.config.kinds import NO_LIMIT
from lbproxy.config.machine_checks import absolute
from lbproxy.config.table import Table
from lbproxy.config.tls_tables import AcmeTable, TlsTable
from lbproxy.settings import (
    AcmeSettings,
    AdminSettings,
    CertificateFiles,
    DrainSettings,
    EventsSettings,
    HealthSettings,
    ListenerLimits,
    ListenerSettings,
    ListenerTimeouts,
    LogSettings,
    PassiveSettings,
    PoolLimits,
    PoolSettings,
    PoolTimeouts,
    ProxySettings,
    RedisSettings,
    ReloadSettings,
    RestartSettings,
    RouteSettings,
    Settings,
    StickySettings,
    TargetTls,
    TlsSettings,
    WebhookSettings,
)

_ZERO_IS_NONE = ("body_bytes", "connections_per_client")  # the code asks whether there is a limit
_PORTS = (20_000, 29_999)


def build(
    document: schema.Document, path: str | None, base: str, control: str, *, state_dir: str | None = None
) -> Settings:
    """`path`: as the user named the file; `base`: where relative paths start; `control`: the control socket.

    `state_dir`: where state is kept if the file does not say.
    """
    pools = tuple(_pool(name, pool, base) for name, pool in (document.pool or {}).items())
    only = pools[0].name if len(pools) == 1 else None
    proxy = _proxy(document.proxy or schema.ProxyTable(), base, control, state_dir)
    listeners = [_listener(listener, base, proxy.state_dir) for listener in document.listener or []]
    return Settings(
        path=path,
        proxy=proxy,
        listeners=tuple(replace(listener, pool=listener.pool or only) for listener in listeners),
        routes=tuple(RouteSettings(**route.given()) for route in document.route or []),
        pools=pools,
        log=_log(document.log or schema.LogTable(), base),
        admin=_admin(document.admin, base, proxy.state_dir) if document.admin is not None else None,
        events=_events(document.events or EventsTable()),
        sticky_keys=tuple(
            (name, pool.sticky.key)
            for name, pool in (document.pool or {}).items()
            if pool.sticky is not None and pool.sticky.key is not None
        ),
    )


def _proxy(table: schema.ProxyTable, base: str, control: str, state_dir: str | None) -> ProxySettings:
    given = {"name": _host_name(), "workers": "auto", "pid_file": None, "ports": _PORTS, **table.given()}
    given["workers"] = _count(given["workers"])
    given["control"] = control
    given["state_dir"] = os.path.join(base, table.state_dir) if table.state_dir is not None else state_dir
    if table.pid_file is not None:
        given["pid_file"] = os.path.join(base, table.pid_file)
    return ProxySettings(**given)


def _listener(table: listener_tables.ListenerTable, base: str, state: str | None) -> ListenerSettings:
    given = table.given()
    given["address"] = absolute(base, table.address)
    given.setdefault("name", str(table.address))
    given["trusted_proxies"] = tuple(table.trusted_proxies or ())
    if table.acme_challenges is not None:
        given["acme_challenges"] = os.path.join(base, table.acme_challenges)
    given["limits"] = ListenerLimits(**_without_limit(table.limits))
    given["timeouts"] = ListenerTimeouts(**_given(table.timeouts))
    given["tls"] = _tls(table.tls, base, state)
    offered = ("h2", "http/1.1") if table.tls is not None and table.mode != "tcp" else ("http/1.1",)
    given["protocols"] = tuple(table.protocols or offered)
    return ListenerSettings(**given)


def _tls(table: TlsTable | None, base: str, state: str | None) -> TlsSettings | None:
    if table is None:
        return None
    given = table.given()
    cert, key = given.pop("cert", None), given.pop("key", None)
    pairs = table.certs or ([CertificateFiles(cert, key)] if cert and key else [])
    given["certs"] = tuple(CertificateFiles(os.path.join(base, one.cert), os.path.join(base, one.key)) for one in pairs)
    given |= {name: os.path.join(base, given[name]) for name in ("directory", "client_ca") if name in given}
    if table.client_ca is not None:
        given.setdefault("client_auth", "require")
    if table.acme is not None:
        acme = given["acme"] = _acme(table.acme, base)
        file = certificate_file(acme, state or base)
        given["certs"] = (CertificateFiles(file, file),)
    return TlsSettings(**given)


def _acme(table: AcmeTable, base: str) -> AcmeSettings:
    given = table.given()
    given["domains"] = tuple(dict.fromkeys(given["domains"]))
    if table.ca is not None:
        given["ca"] = os.path.join(base, table.ca)
    return AcmeSettings(**given)


def _without_limit(table: listener_tables.ListenerLimitsTable | None) -> dict[str, Any]:
    return {key: value or (0 if key in _ZERO_IS_NONE else NO_LIMIT) for key, value in _given(table).items()}


def _pool(name: str, table: pool_tables.PoolTable, base: str) -> PoolSettings:
    given = table.given()
    targets = tuple(absolute(base, target) for target in table.targets or ())
    given["targets"] = targets
    if table.command is not None:
        given["command"] = tuple(table.command)
    given["size"] = len(targets) if targets else _count(given.get("size", 1))
    given["directory"] = os.path.join(base, table.directory) if table.directory is not None else base
    if table.env_file is not None:
        given["env_file"] = os.path.join(base, table.env_file)
    given["env"] = tuple((table.env or {}).items())
    if table.balance == "hash":
        given.setdefault("hash_key", "client_ip")
    given["health"] = _health(table.health)
    given["reload"] = _reload(table.reload)
    given["drain"] = DrainSettings(**_given(table.drain))
    given["restart"] = _restart(table.restart)
    given["timeouts"] = PoolTimeouts(**_given(table.timeouts))
    given["limits"] = _pool_limits(table.limits)
    given["tls"] = _target_tls(table.tls, base) if table.tls is not None or _has_secure(targets) else None
    if "upgrades" in given:
        given["upgrades"] = tuple(dict.fromkeys(given["upgrades"]))
    if table.sticky is not None:
        sticky = table.sticky.given()
        given["sticky"] = StickySettings(**{key: sticky[key] for key in sticky if key not in ("key", "cluster")})
    if "buffer_request" in given:
        given["buffer_request_bytes"] = given.pop("buffer_request")
    given.pop("retry", None)
    given |= {f"retry_{key}": value for key, value in _given(table.retry).items()}
    return PoolSettings(name=name, **given)


def _has_secure(targets: tuple[Address, ...]) -> bool:
    return any(target.secure for target in targets)


def _target_tls(table: pool_tables.TargetTlsTable | None, base: str) -> TargetTls:
    given = _given(table)
    if "ca" in given:
        given["ca"] = os.path.join(base, given["ca"])
        try:
            given["authorities"] = Path(given["ca"]).read_text("ascii", "replace")
        except OSError as exc:  # gone since it was checked: then no certificate is good
            given["authorities"] = f"{given['ca']}: {exc.strerror}"
    return TargetTls(**given)


def _health(table: pool_tables.HealthTable | None) -> HealthSettings:
    given = _given(table)
    if table is not None and table.passive is not None:
        passive = table.passive.given()
        if "at_most" in passive:
            passive["at_most_percent"] = passive.pop("at_most")
        given["passive"] = PassiveSettings(**passive)
    return HealthSettings(**given)


def _reload(table: pool_tables.ReloadTable | None) -> ReloadSettings:
    given = _given(table)
    if "max_surge" in given:
        given["max_surge"], given["max_surge_is_percent"] = given["max_surge"]
    given |= {key: tuple(given[key]) for key in ("before", "after", "warm_up") if key in given}
    return ReloadSettings(**given)


def _restart(table: pool_tables.RestartTable | None) -> RestartSettings:
    given = _given(table)
    backoff, give_up = given.pop("backoff", None), given.pop("give_up", None)
    if "max_memory" in given:
        given["max_memory_bytes"] = given.pop("max_memory")
    given |= {f"backoff_{key}": value for key, value in _given(backoff).items()}
    given |= {f"give_up_{key}": value for key, value in _given(give_up).items()}
    return RestartSettings(**given)


def _pool_limits(table: pool_tables.PoolLimitsTable | None) -> PoolLimits:
    given = _given(table)
    queue = given.pop("queue", None)
    return PoolLimits(**given, **{f"queue_{key}": value for key, value in _given(queue).items()})


def _log(table: schema.LogTable, base: str) -> LogSettings:
    given = table.given()
    if given.get("access_path", "-") != "-":
        given["access_path"] = os.path.join(base, given["access_path"])
    if table.audit_path is not None:
        given["audit_path"] = os.path.join(base, table.audit_path)
    return LogSettings(**given)


def _admin(table: schema.AdminTable, base: str, state: str | None) -> AdminSettings:
    given = table.given()
    given["address"] = absolute(base, table.address)
    given |= {key: tuple(given[key]) for key in ("open", "hosts") if key in given}
    given["tls"] = _tls(table.tls, base, state)
    return AdminSettings(**given)


def _events(table: EventsTable) -> EventsSettings:
    return EventsSettings(
        webhook=WebhookSettings(**_sink(table.webhook)) if table.webhook is not None else None,
        redis=RedisSettings(**_sink(table.redis)) if table.redis is not None else None,
    )


def _sink(table: WebhookTable | RedisTable) -> dict[str, Any]:
    given = table.given()
    if "events" in given:
        given["events"] = tuple(given["events"])
    return given


def _given(table: Table | None) -> dict[str, Any]:
    return table.given() if table is not None else {}


def _count(number: int | str) -> int:
    """A number, or for "auto" the CPUs that this process may use."""
    return usable_cpus() if isinstance(number, str) else number


def _host_name() -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:100] or "lbproxy"
