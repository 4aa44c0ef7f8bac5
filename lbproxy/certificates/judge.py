"""All certificates that a configuration names: read, judged, and what is wrong with them as mistakes of the file."""

import os
from collections.abc import Iterator, Mapping

from lbproxy.certificates.certificate_set import CertificateSet, Look, assembled, look_at
from lbproxy.certificates.sealed import Defect
from lbproxy.config.load import problem_at
from lbproxy.config.problems import ConfigInvalid, Path, dotted
from lbproxy.settings import Settings, TlsSettings

Known = Mapping[TlsSettings, CertificateSet]


def places(settings: Settings) -> Iterator[tuple[Path, TlsSettings]]:
    """Where the file has a `tls`, and what it says."""
    for number, listener in enumerate(settings.listeners):
        if listener.tls is not None:
            yield ("listener", number, "tls"), listener.tls
    if settings.admin is not None and settings.admin.tls is not None:
        yield ("admin", "tls"), settings.admin.tls


def read_all(settings: Settings, known: Known | None = None) -> dict[TlsSettings, Look]:
    """A look at the files of each `tls` that is not known. Slow. Raises ConfigInvalid with everything that is wrong.

    `known`: the sets that are served. Their files may be broken by now: the versions that were read stay in use.
    """
    known = known or {}
    looks: dict[TlsSettings, Look] = {}
    problems = []
    for path, tls in places(settings):
        if tls in known or (tls.acme is not None and not os.path.exists(tls.certs[0].cert)):
            continue  # `acme`: it comes when lbproxy runs
        if tls not in looks:
            looks[tls] = look_at(tls, assembled(tls, known.values()))
        for defect in looks[tls].missing:
            at = (*path, *_key(tls, defect))
            problems.append(problem_at(settings.path, at, f"{dotted(at)}: {defect}"))
    if problems:
        raise ConfigInvalid(problems)
    return looks


def remarks(settings: Settings, sets: Known) -> Iterator[tuple[Path, Defect]]:
    """What an operator should know of certificates that can be used, and where the file names them."""
    said = set()
    for path, tls in places(settings):
        for pair in sets[tls].pairs if tls in sets else ():
            for remark in pair.remarks:
                if str(remark) not in said:
                    said.add(str(remark))
                    yield (*path, *_key(tls, remark)), remark


def found_in(looks: Mapping[TlsSettings, Look]) -> dict[TlsSettings, CertificateSet]:
    return {tls: look.found for tls, look in looks.items() if look.found is not None}


def _key(tls: TlsSettings, defect: Defect) -> Path:
    """Which key of `tls` names the file."""
    if tls.directory is not None and defect.file != tls.client_ca:
        return ("directory",)
    if defect.file == tls.client_ca:
        return ("client_ca",)
    if tls.acme is not None:
        return ("acme",)
    for number, files in enumerate(tls.certs):
        key = "cert" if defect.file == files.cert else "key"
        if defect.file in (files.cert, files.key):
            return (key,) if len(tls.certs) == 1 else ("certs", number, key)
    return ()
