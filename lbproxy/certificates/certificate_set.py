"""The certificates that one `tls` means, as they are now: made from its files, and made anew when these change."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from lbproxy.certificates.files import Stamps, pairs_of, stamps_of
from lbproxy.certificates.loaded_pair import Authorities, LoadedPair, Unusable, read_authorities, read_pair
from lbproxy.certificates.sealed import Defect
from lbproxy.settings import CertificateFiles, TlsSettings


@dataclass(frozen=True, slots=True, eq=False)
class CertificateSet:
    """What a worker is given for one listener. `pairs`: one at least; the first is for clients that no name fits."""

    pairs: tuple[LoadedPair, ...]
    client_ca: Authorities | None = None


@dataclass(slots=True)
class Look:
    """What a look at the files has found. `found` is None where not one certificate can be used.

    `kept`: defects of files whose older version stays in use; `missing`: of files that have none.
    """

    found: CertificateSet | None = None
    kept: list[Defect] = field(default_factory=list)
    missing: list[Defect] = field(default_factory=list)
    gone: tuple[LoadedPair, ...] = ()  # of a directory that does not have them any more
    trace: "Trace" = field(default_factory=lambda: Trace())

    @property
    def defects(self) -> tuple[Defect, ...]:
        return (*self.kept, *self.missing)


@dataclass(frozen=True, slots=True)
class Trace:
    """Two traces are equal as long as no file has changed, come or gone. Cheap: opens no file."""

    pairs: tuple[CertificateFiles, ...] = ()
    why_none: str = ""
    stamps: Stamps = field(default_factory=dict)

    def is_settled(self, now: float) -> bool:
        return all(stamp is None or stamp.is_settled(now) for stamp in self.stamps.values())


def trace_of(tls: TlsSettings) -> Trace:
    pairs: tuple[CertificateFiles, ...]
    try:
        pairs, why = pairs_of(tls), ""
    except Defect as defect:
        pairs, why = (), defect.why
    files = [file for pair in pairs for file in (pair.cert, pair.key)]
    return Trace(pairs, why, stamps_of([*files, *([tls.client_ca] if tls.client_ca is not None else [])]))


def look_at(tls: TlsSettings, old: CertificateSet | None = None, now: float | None = None) -> Look:
    """Read what has changed since `old`; a file that cannot be used keeps its older version, if there is one.

    Slow: opens files, and has OpenSSL read keys.
    """
    now = time.time() if now is None else now
    look = Look(trace=trace_of(tls))
    before = {pair.files: pair for pair in old.pairs} if old is not None else {}
    wanted = look.trace.pairs
    if not wanted:
        (look.missing if old is None else look.kept).append(Defect(tls.directory or "", look.trace.why_none))
        look.found = old
        return look
    pairs = [pair for files in wanted if (pair := _pair(files, before.get(files), look, tls, now)) is not None]
    for files in [files for files in before if files not in wanted and tls.directory is not None]:
        half = [file for file in (files.cert, files.key) if stamps_of([file])[file] is not None]
        if half:  # in the middle of being replaced
            pairs.append(before[files])
            look.kept.append(Defect(half[0], "stands alone: its other half is gone"))
        else:
            look.gone += (before[files],)
    authorities = _authorities(tls, old, look)
    if not pairs or (tls.client_ca is not None and authorities is None):
        look.found, look.gone = old, ()
        return look
    made = CertificateSet(tuple(pairs), authorities)
    is_same = old is not None and (made.pairs, made.client_ca) == (old.pairs, old.client_ca)
    look.found = old if is_same else made
    return look


def _pair(
    files: CertificateFiles, old: LoadedPair | None, look: Look, tls: TlsSettings, now: float
) -> LoadedPair | None:
    if old is not None and _is_unchanged(old, look.trace.stamps, now):
        return old
    try:
        pair = read_pair(files, now)
        defects: tuple[Defect, ...] = ()
    except Unusable as exc:
        pair, defects = None, exc.defects
    if pair is not None and old is not None and pair.has_content_of(old):
        old.chain.stamp, old.key.stamp = pair.chain.stamp, pair.key.stamp
        return old
    # One certificate of a directory that was forgotten must not keep the others from being served.
    if pair is not None and (old is not None or tls.directory is None):
        expired = pair.why_expired(now)
        if expired is not None:
            pair, defects = None, (expired,)
    (look.missing if old is None else look.kept).extend(defects)
    return old if pair is None else pair


def _is_unchanged(pair: LoadedPair, stamps: Stamps, now: float) -> bool:
    return all(stamps.get(file) == stamp and stamp.is_settled(now) for file, stamp in pair.stamps())


def _authorities(tls: TlsSettings, old: CertificateSet | None, look: Look) -> Authorities | None:
    if tls.client_ca is None:
        return None
    before = old.client_ca if old is not None else None
    if before is not None and before.file.stamp == look.trace.stamps.get(tls.client_ca):
        return before
    try:
        return read_authorities(tls.client_ca)
    except Unusable as exc:
        (look.missing if before is None else look.kept).extend(exc.defects)
        return before


def assembled(tls: TlsSettings, known: Iterable[CertificateSet]) -> CertificateSet | None:
    """What sets made for other settings already have of the files of `tls`: for `look_at`, as the older version."""
    wanted = set(tls.certs)
    pairs = {pair.files: pair for one in known for pair in one.pairs if pair.files in wanted}
    authorities = [one.client_ca for one in known if one.client_ca is not None]
    client_ca = next((one for one in authorities if one.file.file == tls.client_ca), None)
    if len(pairs) < len(wanted) or not wanted or (tls.client_ca is not None and client_ca is None):
        return None
    return CertificateSet(tuple(pairs[files] for files in tls.certs), client_ca)
