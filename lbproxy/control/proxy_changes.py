"""What a reload changes besides the pools: listeners, routes, and the settings of the process as a whole.

Plain functions over the old and the new settings. They give JSON values, in which a changed setting is named by its key
and never shown: it may be a secret.
"""

from collections.abc import Callable, Sequence
from typing import Any

from lbproxy.address import Address
from lbproxy.control.generations import differing
from lbproxy.control.next_start import waiting_keys
from lbproxy.model import ListenerView
from lbproxy.settings import ListenerSettings, RouteSettings, Settings


def listener_changes(
    old: Sequence[ListenerView],
    new: Sequence[ListenerSettings],
    *,
    why_not: Callable[[Address], str | None],
    connections: Callable[[ListenerView], int],
) -> dict[str, list[dict[str, Any]]]:
    """A listener whose address stays keeps its sockets. `why_not`: why an address cannot be bound, if so."""
    before = {view.settings.address: view for view in old}
    after = {settings.address for settings in new}
    changed = []
    for settings in new:
        view = before.get(settings.address)
        if view is not None and (keys := differing(view.settings, settings)):
            changed.append({**_listener(settings), "keys": list(keys)})
    return {
        "added": [
            {**_listener(settings), "problem": why_not(settings.address)}
            for settings in new
            if settings.address not in before
        ],
        "changed": changed,
        "gone": [
            {**_listener(view.settings), "connections": connections(view)}
            for view in old
            if view.settings.address not in after
        ],
    }


def _listener(settings: ListenerSettings) -> dict[str, Any]:
    return {
        "name": settings.name,
        "address": str(settings.address),
        "mode": settings.mode,
        "pool": settings.pool,
    }


def route_changes(old: Sequence[RouteSettings], new: Sequence[RouteSettings]) -> dict[str, list[dict[str, Any]]]:
    """A route is named by its host and path. Of several with the same the first one counts, as in a worker."""
    before, after = _by_place(old), _by_place(new)
    return {
        "added": [_route(route) for place, route in after.items() if place not in before],
        "changed": [
            {**_route(route), "from_pool": before[place].pool}
            for place, route in after.items()
            if place in before and before[place] != route
        ],
        "gone": [_route(route) for place, route in before.items() if place not in after],
    }


def _by_place(routes: Sequence[RouteSettings]) -> dict[tuple[str | None, str], RouteSettings]:
    return {(route.host, route.path): route for route in reversed(routes)}


def _route(route: RouteSettings) -> dict[str, Any]:
    return {"host": route.host, "path": route.path, "pool": route.pool}


def setting_changes(old: Settings, new: Settings, worker_count: int) -> dict[str, list[str]]:
    """The keys that apply at once, and those that wait for the next start. `worker_count`: of workers afterwards."""
    keys = [*differing(old.proxy, new.proxy, "proxy."), *differing(old.log, new.log, "log.")]
    if old.admin is not None and new.admin is not None:
        keys += differing(old.admin, new.admin, "admin.")
    elif old.admin != new.admin:
        keys.append("admin")
    keys += differing(old.events, new.events, "events.")
    before, after = dict(old.sticky_keys), dict(new.sticky_keys)
    keys += [f"pool.{name}.sticky.key" for name in {**before, **after} if before.get(name) != after.get(name)]
    later = waiting_keys(old, new, worker_count)
    return {"live": [key for key in keys if key not in later], "next_start": later}
