"""A plan as lines of text, for a terminal of any width.

Knows the document that control makes (forecast.py). Knows neither the control API nor the exit code.
"""

import shlex
import textwrap
from collections.abc import Sequence
from typing import Any

from lbproxy.cli.connections import size_text
from lbproxy.cli.options import Options
from lbproxy.cli.status_text import WIDEST, up
from lbproxy.telemetry.text import printable
from lbproxy.telemetry.words import count

MOST_NAMES = 12  # of backends in one list
_COLORS = {"+": "green", "~": "yellow", "-": "red"}
_ANYWAY = "a reload replaces every backend, changed or not; --config-only would keep these"


def plan_lines(document: dict[str, Any], options: Options, width: int = WIDEST) -> list[str]:
    page = _Page(options, width)
    if document["running"] is not None:
        page.add(f"now: {document['running']}; this is planned against what runs at the moment", color="yellow")
    if document["would_fail"] is not None:
        page.add(f"the reload would end at once: {document['would_fail']}; nothing would happen", color="red")
    if document["nothing"]:
        page.add("nothing would change")
    elif not document["differs"]:
        page.add("nothing has changed in the file")
    _proxy_lines(page, document)
    for name, pool in document["pools"].items():
        _pool_lines(page, name, pool)
    if not document["nothing"]:
        _total_lines(page, document)
    return page.lines


class _Page:
    """Lines that are wrapped, and indented from their second line on."""

    def __init__(self, options: Options, width: int) -> None:
        self.lines: list[str] = []
        self._options = options
        self._width = max(width, 20)

    def add(self, text: str, indent: int = 0, *, color: str | None = None) -> None:
        blanks = " " * indent
        wrapped = textwrap.wrap(
            printable(text),
            self._width,
            initial_indent=blanks,
            subsequent_indent=f"{blanks}    ",
            break_on_hyphens=False,
        )
        self.lines += [self._options.colored(line, color) if color is not None else line for line in wrapped]

    def mark(self, mark: str, text: str) -> None:
        """A line with its sign: + comes, ~ changes, - goes."""
        self.add(f"{mark} {text}", 2, color=_COLORS[mark])


def _proxy_lines(page: _Page, document: dict[str, Any]) -> None:
    listeners, routes, settings = document["listeners"], document["routes"], document["settings"]
    if any(listeners.values()):
        page.add("listeners")
    for one in listeners["added"]:
        page.mark("+", _listener(one) + (": cannot be bound" if one["problem"] is not None else ""))
    for one in listeners["changed"]:
        page.mark("~", f"{_listener(one)}: {', '.join(one['keys'])}")
    for one in listeners["gone"]:
        page.mark("-", f"{_listener(one)}: {count(one['connections'], 'connection')}")
    if any(routes.values()):
        page.add("routes")
    for one in routes["added"]:
        page.mark("+", _route(one))
    for one in routes["changed"]:
        page.mark("~", f"{_route(one)}, now {one['from_pool']}")
    for one in routes["gone"]:
        page.mark("-", _route(one))
    if settings["live"]:
        page.add(f"applied at once: {', '.join(settings['live'])}")
    if settings["next_start"]:
        page.add(f"waits for the next start of lbproxy: {', '.join(settings['next_start'])}", color="yellow")
    workers = document["workers"]
    if workers["now"] != workers["then"]:
        page.add(f"workers: {workers['now']} -> {workers['then']}")


def _listener(one: dict[str, Any]) -> str:
    names = dict.fromkeys((str(one["name"]), str(one["address"])))  # one without a name has its address
    to = f" -> {one['pool']}" if one["pool"] else ""
    return f"{' '.join(names)} ({one['mode']}{to})"


def _route(one: dict[str, Any]) -> str:
    return f"{one['host'] or ''}{one['path']} -> {one['pool']}"


def _pool_lines(page: _Page, name: str, pool: dict[str, Any]) -> None:
    if pool["action"] == "removed":
        page.add(f"pool {name}: removed, it is not in the file any more", color="red")
        page.add(f"stopped: {_names(pool['stopped'])}", 2)
        _held_line(page, pool)
        return
    page.add(_headline(name, pool))
    if pool["because"]:
        page.add(f"because of: {', '.join(pool['because'])}", 2)
    if pool["anyway"]:
        page.add(_ANYWAY, 2)
    if pool["before"] is not None:
        page.add(f"runs first: {shlex.join(pool['before'])}", 2)
    for word in ("replaced", "started", "stopped", "kept"):
        if pool[word] and (word != "kept" or pool["action"] != "unchanged"):
            page.add(f"{word}: {_names(pool[word])}", 2)
    if pool["live"]:
        page.add(f"{'also new' if pool['action'] in ('replaced', 'added') else 'applied live'}: {_keys(pool)}", 2)
    if pool["after"] is not None:
        page.add(f"runs afterwards: {shlex.join(pool['after'])}", 2)
    _held_line(page, pool)
    memory = pool["memory"]
    if memory is not None and memory["at_a_time"]:
        more = f"{size_text(memory['more_bytes'])} more for {memory['at_a_time']} at a time"
        page.add(f"memory: {size_text(memory['now_bytes'])} now, {more}", 2)
    if pool["from_reloads"]:
        number = pool["from_reloads"]
        known_from = "the last reload" if number == 1 else f"the median of the last {number} reloads"
        page.add(f"takes about {up(pool['expected_s'])}, by {known_from}", 2)


def _keys(pool: dict[str, Any]) -> str:
    return ", ".join(pool["live"])


def _headline(name: str, pool: dict[str, Any]) -> str:
    backends = count(pool["size"], "backend")
    match pool["action"]:
        case "added":
            return f"pool {name}: new, {backends}"
        case "unchanged":
            return f"pool {name}: unchanged, generation {pool['generation']} with {backends}"
        case "replaced":
            what = f"pool {name}: every backend is replaced, generation {pool['from_generation']} -> "
            what += str(pool["generation"])
        case _ if pool["generation"] != pool["from_generation"]:
            what = f"pool {name}: some backends change, generation {pool['from_generation']} -> {pool['generation']}"
        case _:
            what = f"pool {name}: changed, generation {pool['generation']} serves on"
    size = f", {pool['from_size']} -> {backends}" if pool["from_size"] != pool["size"] else f", {backends}"
    return what + size


def _held_line(page: _Page, pool: dict[str, Any]) -> None:
    if pool["connections"]:
        page.add(f"in hand: {_kinds(pool['connections'])}, for up to {up(pool['drain_at_most_s'])}", 2)


def _kinds(connections: dict[str, int]) -> str:
    return ", ".join(count(number, kind) for kind, number in connections.items())


def _names(names: Sequence[str]) -> str:
    """`web.1@6 web.2@6`; of many the first ones, and how many more."""
    if len(names) <= MOST_NAMES:
        return " ".join(names)
    return f"{' '.join(names[: MOST_NAMES - 1])} and {len(names) - MOST_NAMES + 1} more"


def _total_lines(page: _Page, document: dict[str, Any]) -> None:
    held = _kinds(document["connections"]) or "none"
    page.add(f"connections affected: {held}")
    memory = document["memory"]
    free = [
        f"{size_text(memory[key])} in the {where}"
        for key, where in (("free_host_bytes", "host"), ("free_cgroup_bytes", "cgroup"))
        if memory[key] is not None
    ]
    text = f"memory: {size_text(memory['now_bytes'])} now, {size_text(memory['peak_bytes'])} at the peak"
    if memory["at_most_bytes"] > memory["peak_bytes"]:
        text += f" ({size_text(memory['at_most_bytes'])} while all old backends still drain)"
    if memory["not_measured"]:
        text += f", and what {', '.join(memory['not_measured'])} will need"
    text += f"; free: {' and '.join(free)}" if free else ""
    page.add(text if memory["fits"] else f"{text}: too little", color=None if memory["fits"] else "red")
    unknown = [name for name, pool in document["pools"].items() if pool["expected_s"] is None]
    if unknown:
        page.add(f"how long {' and '.join(unknown)} will take is not known: the history has no reload of that kind")
    else:
        page.add(f"takes about {up(document['expected_s'])}")
