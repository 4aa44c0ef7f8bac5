"""Advice on a valid configuration that may be a mistake: printed by `check`, logged by `serve`, never an error.

Knows the settings, the number of CPUs, and the programs that commands name.
"""

import os
from collections.abc import Iterator

from lbproxy.config.cpus import usable_cpus
from lbproxy.config.program import why_no_program
from lbproxy.config.text_files import beginning_of
from lbproxy.policy.ejection import most
from lbproxy.settings import PoolSettings, Settings

_NAMED = {
    "tcp": ("{port}", "PORT", "$PORT"),
    "unix": ("{socket}", "LBPROXY_SOCKET", "$LBPROXY_SOCKET"),
    "fd": ("{fd}", "LISTEN_FDS", "LISTEN_FDS"),
}

_GUESSABLE_BYTES = 16


def advise(settings: Settings) -> list[str]:
    """One line each, with the key that it is about."""
    parts = (_command, _hooks, _targets, _ejection)
    of_pools = [line for pool in settings.pools for part in parts for line in part(pool)]
    return [
        *_workers(settings),
        *_acme(settings),
        *of_pools,
        *_routes(settings),
        *_sticky_keys(settings),
        *_sticky_cookies(settings),
        *_admin(settings),
    ]


def _workers(settings: Settings) -> Iterator[str]:
    cpus = usable_cpus()
    if settings.proxy.workers > cpus:
        yield f"proxy.workers: {settings.proxy.workers} workers share {cpus} CPU{'' if cpus == 1 else 's'}"


def _acme(settings: Settings) -> Iterator[str]:
    """An authority asks at port 80, without TLS."""
    if any(listener.mode == "http" and listener.tls is None for listener in settings.listeners):
        return
    for number, listener in enumerate(settings.listeners):
        if listener.tls is not None and listener.tls.acme is not None:
            yield (
                f"listener.{number}.tls.acme: no listener without tls answers what the authority asks at port 80 "
                '(add a [[listener]] with address = ":80")'
            )


def _routes(settings: Settings) -> Iterator[str]:
    """Where only TCP is passed on, a route that asks for more than a name takes nothing."""
    if any(listener.mode == "http" for listener in settings.listeners):
        return
    for number, route in enumerate(settings.routes, 1):
        if route.host is None or route.path != "/":
            yield f"[[route]] {number}: tcp listeners see host names only (SNI), so it takes nothing"


def _sticky_keys(settings: Settings) -> Iterator[str]:
    keyed = dict(settings.sticky_keys)
    for name, key in keyed.items():
        if len(key.value) < _GUESSABLE_BYTES:
            yield f"pool.{name}.sticky.key: has {len(key.value)} bytes; whoever guesses it can choose a backend"
    if settings.proxy.state_dir is None:
        for pool in settings.pools:
            if pool.sticky is not None and pool.name not in keyed:
                yield f"pool.{pool.name}.sticky: no state_dir and no key: cookies are good until lbproxy ends"


def _sticky_cookies(settings: Settings) -> Iterator[str]:
    """A browser that goes to two pools of one host gives each of them the cookie that the other one has set."""
    cookies = {pool.name: pool.sticky.cookie for pool in settings.pools if pool.sticky is not None}
    first = {listener.pool for listener in settings.listeners if listener.mode == "http" and listener.pool is not None}
    told: set[str] = set()
    for host in dict.fromkeys(route.host for route in settings.routes):
        reached = [route for route in settings.routes if route.host in (host, None)]
        if any(route.path == "/" and route.host == host for route in reached):
            reached = [route for route in reached if route.host == host]
        rest = set() if any(route.path == "/" for route in reached) else first
        pools = rest | {route.pool for route in reached}
        seen: dict[str, str] = {}
        for name in sorted(pools & cookies.keys()):
            other = seen.setdefault(cookies[name], name)
            if other != name and name not in told:
                told.add(name)
                yield (
                    f"pool.{name}.sticky.cookie: {cookies[name]!r} is that of pool {other}, too, on the same host: "
                    "each of them overwrites the other's (give it a name of its own)"
                )


def rights(settings: Settings) -> Iterator[str]:
    """Only `check` says these: a log need not say them at every start."""
    if settings.path is not None and settings.proxy.user is None and os.geteuid() == 0:
        yield "proxy.user: workers, which read what clients send, run as root (it names another user for them)"


def _admin(settings: Settings) -> Iterator[str]:
    admin = settings.admin
    if admin is not None and admin.tls is None and not admin.address.is_local:
        yield f"admin.address: {admin.address} is beyond loopback and without TLS: the token can be read on the way"


def _command(pool: PoolSettings) -> Iterator[str]:
    missing = why_no_program(pool)
    if missing is not None:
        yield f"pool.{pool.name}.command: {missing}"
    placeholder, variable, spelt = _NAMED[pool.bind]
    if pool.command is None or any(placeholder in word or variable in word for word in pool.command):
        return
    if not any(variable in _source(pool.directory, word) for word in pool.command):
        yield (
            f"pool.{pool.name}.command: names no {placeholder}: the program has to read {spelt} by itself, "
            "or it will not be found"
        )


def _targets(pool: PoolSettings) -> Iterator[str]:
    if pool.tls is not None and not pool.tls.verify:
        yield f"pool.{pool.name}.tls.verify: false: anybody on the way to its targets can read and change everything"


def _hooks(pool: PoolSettings) -> Iterator[str]:
    for name, command in (("before", pool.reload.before), ("after", pool.reload.after)):
        if command is not None and os.geteuid() == 0 and pool.user is None:
            yield f"pool.{pool.name}.reload.{name}: runs as root (pool.{pool.name}.user names another user)"


def _ejection(pool: PoolSettings) -> Iterator[str]:
    passive = pool.health.passive
    if passive is not None and not most(pool.size, passive.at_most_percent):
        backends = "1 backend" if pool.size == 1 else f"{pool.size} backends"
        yield f"pool.{pool.name}.health.passive: {passive.at_most_percent}% of {backends} is none: nothing is ejected"


def _source(directory: str, word: str) -> str:
    """The beginning of a script that a command names (`node server.js`); empty for everything else."""
    path = os.path.join(directory, word)
    return beginning_of(path) if "." in word and os.path.isfile(path) else ""
