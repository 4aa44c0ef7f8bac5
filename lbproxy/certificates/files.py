"""Which files hold the certificates of a listener: those that are named, or those that a directory has.

Looks at names and links. Does not read the files.
"""

import os
from collections.abc import Iterable

from lbproxy.certificates.sealed import Defect, Stamp
from lbproxy.settings import CertificateFiles, TlsSettings

_TOGETHER, _CERT, _KEY = ".pem", ".crt", ".key"
_CHAIN_FILE, _KEY_FILE = "fullchain.pem", "privkey.pem"  # as certbot calls them

Stamps = dict[str, Stamp | None]  # by path; None: there is no such file


def pairs_of(tls: TlsSettings) -> tuple[CertificateFiles, ...]:
    """The pairs of a directory are in the order of their names. Raises Defect."""
    return tls.certs if tls.directory is None else _in_directory(tls.directory)


def _in_directory(directory: str) -> tuple[CertificateFiles, ...]:
    try:
        names = sorted(os.listdir(directory))
    except OSError as exc:
        raise Defect(directory, f"cannot be read: {(exc.strerror or str(exc)).lower()}") from None
    if _CHAIN_FILE in names and _KEY_FILE in names:
        parent = os.path.dirname(directory.rstrip("/"))
        raise Defect(directory, f"is the directory of one certificate (write directory = {parent!r}, or cert and key)")
    # Kubernetes keeps the versions of a secret in directories such as ..2026_01_01.
    found = [pair for name in names if not name.startswith(".") if (pair := _pair(directory, name, names)) is not None]
    if not found:
        layouts = f"NAME{_TOGETHER}, NAME{_CERT} + NAME{_KEY}, NAME/{_CHAIN_FILE} + NAME/{_KEY_FILE}"
        raise Defect(directory, f"holds no certificate ({layouts})")
    return tuple(found)


def _pair(directory: str, name: str, names: list[str]) -> CertificateFiles | None:
    """The pair that an entry of the directory begins. A NAME.crt without a key is an authority's, or not complete."""
    path = os.path.join(directory, name)
    stem, suffix = os.path.splitext(name)
    if suffix in (_TOGETHER, _CERT):
        if stem + _KEY in names:
            return CertificateFiles(path, os.path.join(directory, stem + _KEY))
        return CertificateFiles(path, path) if suffix == _TOGETHER else None
    inner = CertificateFiles(os.path.join(path, _CHAIN_FILE), os.path.join(path, _KEY_FILE))
    return inner if os.path.lexists(inner.cert) and os.path.isdir(path) else None


def stamps_of(files: Iterable[str]) -> Stamps:
    stamps: Stamps = {}
    for file in files:
        try:
            stamps[file] = Stamp.of(os.stat(file))
        except (OSError, ValueError):
            stamps[file] = None
    return stamps
