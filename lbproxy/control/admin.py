"""[admin]: health, metrics, status, events and the page, over HTTP for people and monitoring.

Reads are what the control API answers, without logs, output and environments; changes need a token. Knows which paths
are shown. admin_gate.py decides who may ask, api_server.py speaks HTTP.
"""

import re
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from typing import Any

import trio

from lbproxy.address import Address
from lbproxy.control import admin_gate
from lbproxy.control.admin_socket import AdminSocket, peer_address
from lbproxy.control.admin_tls import AdminTls
from lbproxy.control.api import Api
from lbproxy.control.api_server import Answer, ApiServer, Declined, Door, Fields, Question, by_name
from lbproxy.control.event_stream import EventStreams, values_of
from lbproxy.control.listening_socket import BindFailed
from lbproxy.control.page import ASSETS, HTML, LAST_EVENTS, Page
from lbproxy.control.pool_series import EVERY_S, PoolSeries, Totals
from lbproxy.link.grid import Counter
from lbproxy.settings import AdminSettings
from lbproxy.telemetry.event_ring import EventRing, Numbered
from lbproxy.telemetry.events import Notice, ReloadStarted

_SHARED_S, _QUIET_S = 0.2, 1.0
SHOWN = ("/livez", "/readyz", "/metrics", "/v1/status")
_HIDDEN = ("output", "problems", "env", "environment")
_PATH = re.compile(r" \(PATH is [^\n]*\)")
_SOURCE_LINE = re.compile(r"\n *[0-9]+ \|[^\n]*")  # of the configuration, in a report
FIELDS: Fields = (
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)


class Admin:
    """`sock` is bound already when the configuration of the start has [admin]."""

    def __init__(self, settings: AdminSettings | None, sock: AdminSocket, api: Api) -> None:
        self._settings = settings
        self._sock = sock
        self._api = api
        self._tls = AdminTls()
        self._wrong = admin_gate.WrongTokens(on_locked=self._say_locked)
        self._streams = EventStreams(api.events.ring, shown)
        self._series = PoolSeries()
        self._pages: dict[bool, tuple[float, int, bytes]] = {}  # by is_live: when made, the newest event, the page
        self._changed = trio.Event()

    def apply(self, settings: AdminSettings | None) -> None:
        """Apply the settings of a reload. Another address takes effect a moment later."""
        self._settings = settings
        self._changed.set()

    async def run(self) -> None:
        while True:
            self._changed = trio.Event()
            self._follow_address()
            async with trio.open_nursery() as nursery:
                if self._sock.sock is not None:
                    sock = trio.socket.from_stdlib_socket(self._sock.sock)
                    door = Door(peer_address, by_name, self._check, FIELDS, self._secure)
                    nursery.start_soon(self._sample)
                    nursery.start_soon(ApiServer(sock, self.answer, self._api.context.emit, door).run)
                while self._wanted_address() == self._sock.address:
                    await self._changed.wait()
                    self._changed = trio.Event()
                nursery.cancel_scope.cancel()

    async def _sample(self) -> None:
        """Note the totals of each pool from time to time: the page shows the last five minutes."""
        at = trio.current_time() - EVERY_S
        while True:
            now = trio.current_time()
            pools = self._api.context.fleet.pools.items()
            tallies = self._api.context.measured.tallies
            errors = tallies.server_errors()
            totals = {
                name: Totals(pool.total(Counter.REQUESTS), errors.get(name, 0), tallies.pace(name).p99_s)
                for name, pool in pools
            }
            self._series.add(totals, now - at)
            at = now
            await trio.sleep(EVERY_S)

    def _wanted_address(self) -> Address | None:
        return self._settings.address if self._settings is not None else None

    def _follow_address(self) -> None:
        """Listen where the settings say; if that fails, where it was."""
        old, new = self._sock.address, self._wanted_address()
        if new == old:
            return
        self._sock.close()
        try:
            if new is not None:
                self._sock.bind(new)
        except BindFailed as exc:
            self._api.context.emit(Notice(str(exc)))
            if old is not None and self._settings is not None:
                self._settings = replace(self._settings, address=old)
                self._follow_address()
            else:
                self._settings = None

    def _check(self, question: Question) -> None:
        if self._settings is None:
            raise Declined(404, "[admin] is off")
        if question.path in ASSETS:
            question = replace(question, path="/")
        admin_gate.check(question, self._settings, self._api.context.settings.proxy.name, self._wrong)

    async def _secure(self, connection: trio.socket.SocketType) -> trio.abc.Stream:
        tls = self._settings.tls if self._settings is not None else None
        found = self._api.context.certificates.of(tls)
        if tls is None or found is None:
            return trio.SocketStream(connection)
        return await self._tls.handshake(connection, tls, found)

    def _say_locked(self, address: str) -> None:
        many, minute = admin_gate.WRONG_TOKENS, f"{admin_gate.WITHIN_S:g}s"
        self._api.context.emit(Notice(f"[admin] {address} sent {many} wrong tokens within {minute}: it has to wait"))

    async def answer(self, question: Question) -> Answer:
        """Raises Declined."""
        try:
            answer = await self._answer(question)
        except Declined as exc:
            exc.answer = replace(exc.answer, values=shown(exc.answer.values))
            raise
        lines = _shown_lines(answer.lines) if answer.lines is not None else None
        return replace(answer, values=shown(answer.values), lines=lines)

    async def _answer(self, question: Question) -> Answer:
        if question.method == "GET":
            if question.path == "/v1/events":
                return self._streams.answer(question)
            if question.path == "/":
                return await self._page(is_live=self._may_follow(question))
            if question.path in ASSETS:
                return Answer(text=ASSETS[question.path])
            if question.path not in SHOWN:
                raise Declined(404, f"[admin] does not show {question.path}")
        return await self._api.answer(question)

    def _may_follow(self, question: Question) -> bool:
        """Whether this browser may read the events. If not, asking for them would make it ask for a password."""
        settings = self._settings
        is_open = settings is None or settings.token is None or "/v1/events" in settings.open
        return is_open or "authorization" in question.fields

    async def _page(self, *, is_live: bool) -> Answer:
        """Many who look share one page: with 500 backends it costs 20 ms. page.js asks 250 ms after an event."""
        ring = self._streams.ring
        made_at, newest, made = self._pages.get(is_live, (float("-inf"), 0, b""))
        age_s = trio.current_time() - made_at
        if age_s < _SHARED_S or (age_s < _QUIET_S and newest == ring.newest_id):
            return Answer(text=(made, HTML))
        status = await self._api.answer(Question("GET", "/v1/status", {}, {}))
        last, reload = ring.after(ring.last(LAST_EVENTS)), last_reload(ring)
        page = Page(
            shown(status.values),
            [shown(values_of(numbered)) for numbered in last],
            [shown(values_of(numbered)) for numbered in reload],
            {name: self._series.of(name) for name in status.values["pools"]},
            is_live=is_live,
        )
        made = page.render()
        self._pages[is_live] = trio.current_time(), ring.newest_id, made
        return Answer(text=(made, HTML))


def last_reload(ring: EventRing) -> list[Numbered]:
    """All events of the last reload, or of the one that runs; the oldest first."""
    found: list[Numbered] = []
    last: str | None = None
    for numbered in ring.newest_first():
        reload = getattr(numbered.event, "reload", None)
        last = last or reload
        if reload is not None and reload == last:
            found.append(numbered)
            if isinstance(numbered.event, ReloadStarted):
                break
    return found[::-1]


def shown(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values without the output of backends, environments and lines of the configuration."""
    return {key: _shown(value) for key, value in values.items() if key not in _HIDDEN}


def _shown(value: Any) -> Any:
    match value:
        case str() if value.isprintable() and "(PATH" not in value:
            return value
        case str():
            return _SOURCE_LINE.sub("", _PATH.sub("", value))
        case Mapping():
            return shown(value)
        case list() | tuple():
            return [_shown(one) for one in value]
    return value


async def _shown_lines(lines: AsyncGenerator[Mapping[str, Any], None]) -> AsyncGenerator[Mapping[str, Any], None]:
    try:
        async for line in lines:
            yield shown(line)
    finally:
        await lines.aclose()
