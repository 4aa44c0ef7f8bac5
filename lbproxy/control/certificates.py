"""The certificates that are served, and their rotation: files that change are read, judged, and given to the workers.

Holds one set for each `tls` of the settings. Looks at the files once a second, in a thread, as long as there is one.
A pair whose halves do not fit (the new certificate is there, the new key not yet) has a few seconds before it is said.
"""

import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import trio

from lbproxy.certificates import judge
from lbproxy.certificates.certificate_set import CertificateSet, Look, Trace, look_at, trace_of
from lbproxy.certificates.loaded_pair import Authorities, LoadedPair
from lbproxy.certificates.sealed import Defect
from lbproxy.config.problems import dotted
from lbproxy.control.acme_process import make_stand_ins
from lbproxy.control.workers import Workers
from lbproxy.model import ListenerView
from lbproxy.settings import Settings, TlsSettings
from lbproxy.telemetry.events import CertificateExpiring, CertificateLoaded, CertificateRejected, Event, Notice
from lbproxy.telemetry.text import few, iso_time

LOOK_S = 1.0
PATIENCE_S = 5.0  # for the other half of a pair
DELIVERY_S = 10.0  # a worker that does not answer for longer is hung, and about to be replaced
WARN_DAYS = (21, 7, 1, 0)  # 0: it has expired
DAY_S = 86_400.0


@dataclass(slots=True, eq=False)
class _Served:
    """One `tls` that is served, and what its files last were."""

    tls: TlsSettings
    set: CertificateSet
    trace: Trace
    defects: tuple[Defect, ...] = ()
    since: float = 0.0  # Trio's clock, when `defects` began
    are_said: bool = True
    warned: dict[str, int] = field(default_factory=dict)  # by file: the lowest threshold of WARN_DAYS that was said


async def _deliver_to_nobody() -> None:
    await trio.lowlevel.checkpoint()


class Certificates:
    """`now`: seconds of the epoch."""

    def __init__(self, settings: Settings, now: Callable[[], float] = time.time) -> None:
        """Read the certificates of the start, for `adopt`. Raises ConfigInvalid."""
        self._emit: Callable[[Event], None] = lambda event: None
        self._deliver: Callable[[], Awaitable[None]] = _deliver_to_nobody
        self._now = now
        self._settings = settings
        self._served: dict[TlsSettings, _Served] = {}
        self._prepared = judge.read_all(settings)
        self._looking = trio.Lock()
        self._adopted = trio.Event()
        self._refused: set[tuple[CertificateSet, str]] = set()

    def serve_to(self, workers: Workers, emit: Callable[[Event], None]) -> None:
        self._emit = emit
        self._deliver = workers.renew_certificates
        workers.delivery.current = lambda view: self.of(view.settings.tls)
        workers.delivery.on_refused = self._refuse

    # The settings in force

    async def prepare(self, settings: Settings, *, keep: bool = True) -> None:
        """Read the certificates of settings that may come into force. Raises ConfigInvalid. `keep`: for `adopt`."""
        looks: dict[TlsSettings, Look] = {}
        if any(judge.places(settings)):
            if keep:
                await trio.to_thread.run_sync(make_stand_ins, settings)
            known = {tls: served.set for tls, served in self._served.items()}
            looks = await trio.to_thread.run_sync(judge.read_all, settings, known)
        if keep:
            self._prepared = looks

    def adopt(self, settings: Settings, reload: str | None = None) -> None:
        """The settings come into force with the next table. Sets that only older settings name stay until `forget`."""
        self._settings = settings
        fresh = {}
        known = {pair for served in self._served.values() for pair in served.set.pairs}
        for _, tls in judge.places(settings):
            look = self._prepared.get(tls)
            if tls not in self._served and look is not None and look.found is not None:
                self._served[tls] = _Served(tls, look.found, look.trace)
                fresh[tls] = look
        self._prepared = {}
        for path, remark in judge.remarks(settings, judge.found_in(fresh)):
            self._emit(Notice(f"{dotted(path)}: {remark}", reload=reload))
        for tls, look in fresh.items():
            served = self._served[tls]
            pairs = tuple(pair for pair in served.set.pairs if pair not in known)
            self._say_loaded(served, pairs, served.set.client_ca, reload)
            self._take_defects(served, look.defects, reload=reload, is_patient=False)
            self._warn(served)
        self._adopted.set()

    def forget_others(self) -> None:
        """Drop the sets that the settings in force do not name: every worker has applied their table."""
        wanted = {tls for _, tls in judge.places(self._settings)}
        self._served = {tls: served for tls, served in self._served.items() if tls in wanted}

    def of(self, tls: TlsSettings | None) -> CertificateSet | None:
        served = self._served.get(tls) if tls is not None else None
        return served.set if served is not None else None

    def _refuse(self, view: ListenerView, found: CertificateSet, why: str) -> None:
        """A worker could not load a set: it goes on with the one before, if there was one."""
        if (found, why) not in self._refused:
            self._refused = {(found, why), *(one for one in self._refused if one[0] is found)}
            self._emit(
                CertificateRejected(found.pairs[0].files.cert, f"is refused by a worker: {why}", (view.settings.name,))
            )

    # Rotation

    async def run(self) -> None:
        while True:
            while not self._served:
                self._adopted = trio.Event()
                await self._adopted.wait()
            await trio.sleep(LOOK_S)
            await self.look()

    async def look(self, *, reload: str | None = None) -> None:
        """Look for files that have changed. For a reload, defects are said at once, with its id."""
        if not self._served:
            return
        async with self._looking:
            all_served = list(self._served.values())
            looks = await trio.to_thread.run_sync(_look_at_changed, all_served, self._now())
            news = [(served, served.set, look) for served, look in looks]
            for served, _, look in news:
                served.trace, served.set = look.trace, look.found or served.set
                self._take_defects(served, look.defects, reload=reload, is_patient=reload is None)
            if any(served.set is not before for served, before, _ in news):
                with trio.move_on_after(DELIVERY_S):
                    await self._deliver()
            for served, before, look in news:
                pairs = tuple(pair for pair in served.set.pairs if pair not in before.pairs)
                authorities = served.set.client_ca if served.set.client_ca is not before.client_ca else None
                self._say_loaded(served, pairs, authorities, reload)
                for pair in look.gone:
                    what = f"{pair.files.cert} is gone: the certificate of {few(pair.names)} is not served any more"
                    self._emit(Notice(what, reload=reload))
            for served in all_served:
                self._take_defects(served, served.defects, reload=reload, is_patient=reload is None)
                self._warn(served)

    def _take_defects(
        self, served: _Served, defects: tuple[Defect, ...], *, reload: str | None, is_patient: bool
    ) -> None:
        """Say what is wrong, once; nothing while it may be half of a change."""
        if list(map(str, defects)) != list(map(str, served.defects)):
            served.defects, served.since, served.are_said = defects, trio.current_time(), False
        if not served.are_said and (not is_patient or trio.current_time() - served.since >= PATIENCE_S):
            served.are_said = True
            for defect in defects:
                self._emit(CertificateRejected(defect.file, defect.why, self._listeners(served.tls), reload))

    def _say_loaded(
        self, served: _Served, pairs: tuple[LoadedPair, ...], authorities: Authorities | None, reload: str | None
    ) -> None:
        listeners = self._listeners(served.tls)
        for pair in pairs:
            not_after = iso_time(pair.leaf.not_after)
            self._emit(CertificateLoaded(pair.files.cert, pair.names, not_after, listeners, reload))
        if authorities is not None:
            names = tuple(one.subject for one in authorities.certificates)
            not_after = iso_time(min(one.not_after for one in authorities.certificates))
            self._emit(CertificateLoaded(authorities.file.file, names, not_after, listeners, reload))

    def _warn(self, served: _Served) -> None:
        now = self._now()
        for pair in served.set.pairs:
            days = (pair.leaf.not_after - now) / DAY_S
            threshold = min((limit for limit in WARN_DAYS if days <= limit), default=None)
            file = pair.files.cert
            if threshold is None:
                served.warned.pop(file, None)
            elif threshold < served.warned.get(file, threshold + 1):
                served.warned[file] = threshold
                facts = iso_time(pair.leaf.not_after), int(days // 1), self._listeners(served.tls)
                self._emit(CertificateExpiring(file, pair.names, *facts))

    def _listeners(self, tls: TlsSettings) -> tuple[str, ...]:
        names = [listener.name for listener in self._settings.listeners if listener.tls == tls]
        admin = self._settings.admin
        return (*names, "admin") if admin is not None and admin.tls == tls else tuple(names)

    # What status and metrics show

    def facts(self, tls: TlsSettings | None) -> list[dict[str, Any]]:
        """The certificates of one `tls`, in the order in which a name is looked for."""
        found = self.of(tls)
        return [
            {
                "names": list(pair.names),
                "not_after": iso_time(pair.leaf.not_after),
                "days_left": int((pair.leaf.not_after - self._now()) // DAY_S),
                "file": pair.files.cert,
                "issuer": pair.leaf.issuer,
                "serial": pair.leaf.serial,
            }
            for pair in (found.pairs if found is not None else ())
        ]

    def not_after(self) -> list[tuple[tuple[str, str], float]]:
        """The end of each certificate, by listener and first name. Of two with one name it is the earlier end."""
        ends: dict[tuple[str, str], float] = {}
        for served in self._served.values():
            for listener, pair in product(self._listeners(served.tls), served.set.pairs):
                key = listener, pair.names[0]
                ends[key] = min(pair.leaf.not_after, ends.get(key, pair.leaf.not_after))
        return list(ends.items())


def _look_at_changed(all_served: list[_Served], now: float) -> list[tuple[_Served, Look]]:
    """Runs in a thread."""
    return list(_changed(all_served, now))


def _changed(all_served: list[_Served], now: float) -> Iterator[tuple[_Served, Look]]:
    for served in all_served:
        trace = trace_of(served.tls)
        if trace != served.trace or not trace.is_settled(now):
            yield served, look_at(served.tls, served.set, now)
