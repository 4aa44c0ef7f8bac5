"""A certificate chain with its private key, read and judged: or everything that is wrong with the two files."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from lbproxy.certificates.sealed import Defect, Sealed, Stamp
from lbproxy.settings import CertificateFiles
from lbproxy.telemetry.text import iso_time
from lbproxy.tls.contexts import BadCertificate, Pair, ServerContexts
from lbproxy.wire.certificate import CERTIFICATE_LABELS, KEY_LABEL, Certificate, pem_blocks, read_certificate

_FOR_EVERYBODY = 0o004
_DER = b"\x30\x82"


class Unusable(Exception):
    """The files cannot be used. `defects`: all of them, one at least."""

    def __init__(self, *defects: Defect) -> None:
        super().__init__("; ".join(map(str, defects)))
        self.defects = defects


@dataclass(frozen=True, slots=True, eq=False)
class LoadedPair:
    """One version of a pair. `leaf`: the certificate of the server itself, the first of the chain."""

    files: CertificateFiles
    leaf: Certificate
    chain: Sealed
    key: Sealed  # `chain` itself where one file holds both
    remarks: tuple[Defect, ...]  # what an operator should know, and no reason to refuse the pair

    @property
    def names(self) -> tuple[str, ...]:
        """What the certificate is good for; its subject where it names nothing."""
        return (*self.leaf.names, *self.leaf.addresses) or (self.leaf.subject,)

    def why_expired(self, now: float) -> Defect | None:
        if self.leaf.not_after > now:
            return None
        return Defect(self.files.cert, f"expired on {day(self.leaf.not_after)}")

    def stamps(self) -> Iterator[tuple[str, Stamp]]:
        yield self.files.cert, self.chain.stamp
        yield self.files.key, self.key.stamp

    def has_content_of(self, other: "LoadedPair") -> bool:
        """Whether both would be served alike. The chain tells: a key that fits it is the same key."""
        mine, theirs = self.chain.read(), other.chain.read()
        try:
            return mine == theirs
        finally:
            mine[:], theirs[:] = bytes(len(mine)), bytes(len(theirs))


@dataclass(frozen=True, slots=True, eq=False)
class Authorities:
    """The certificates of authorities that clients' certificates are held against."""

    file: Sealed
    certificates: tuple[Certificate, ...]


def read_pair(files: CertificateFiles, now: float | None = None) -> LoadedPair:
    """Raises Unusable. An expired certificate is for the caller to refuse."""
    now = time.time() if now is None else now
    opened, defects = [], []
    for file in dict.fromkeys((files.cert, files.key)):
        try:
            opened.append(Sealed(file))
        except Defect as defect:
            defects.append(defect)
    if defects:
        raise Unusable(*defects)
    chain, key = opened[0], opened[-1]
    certificates = _certificates(chain)
    _check_order(chain.file, certificates)
    _check_key(chain, key)
    leaf = certificates[0]
    remarks = []
    pair = LoadedPair(files, leaf, chain, key, ())
    if (expired := pair.why_expired(now)) is not None:
        remarks.append(expired)
    if leaf.not_before > now:
        remarks.append(Defect(files.cert, f"is not valid before {iso_time(leaf.not_before)}"))
    if not leaf.names and not leaf.addresses:
        remarks.append(Defect(files.cert, "names no host (subjectAltName): clients that look at names refuse it"))
    if key.mode & _FOR_EVERYBODY:
        remarks.append(Defect(files.key, f"holds a private key that everybody can read (mode {key.mode:04o})"))
    return replace(pair, remarks=tuple(remarks))


def read_authorities(file: str) -> Authorities:
    """Raises Unusable."""
    try:
        sealed = Sealed(file)
    except Defect as defect:
        raise Unusable(defect) from None
    certificates = _certificates(sealed)
    return Authorities(sealed, certificates)


def _certificates(chain: Sealed) -> tuple[Certificate, ...]:
    """Raises Unusable."""
    content = chain.read()
    try:
        blocks = pem_blocks(content)
        ders = [der for label, der in blocks if label in CERTIFICATE_LABELS]
        if not ders and any(label.endswith(KEY_LABEL) for label, _ in blocks):
            raise ValueError("it is a private key")
        if not ders and content.startswith(_DER):
            raise ValueError("it is DER, not PEM (openssl x509 -inform der -in FILE -out FILE.pem)")
        if not ders:
            raise ValueError("there is no BEGIN CERTIFICATE in it")
    except ValueError as exc:
        raise Unusable(Defect(chain.file, f"holds no certificate that can be read: {exc}")) from None
    finally:
        content[:] = bytes(len(content))
    certificates = []
    for number, der in enumerate(ders, 1):
        try:
            certificates.append(read_certificate(der))
        except ValueError as exc:
            raise Unusable(Defect(chain.file, f"has a wrong certificate, number {number}: {exc}")) from None
    return tuple(certificates)


def _check_order(file: str, certificates: Sequence[Certificate]) -> None:
    """Each certificate behind the first must have issued one before it. Raises Unusable."""
    wanted = {certificates[0].issuer_name}
    for number, above in enumerate(certificates[1:], 2):
        if above.subject_name not in wanted:
            first = certificates[0]
            hint = ": the server's own comes first" if first.is_authority and not above.is_authority else ""
            text = f"is not a chain in its order: certificate {number} ({above.subject}) has issued none before it"
            raise Unusable(Defect(file, f"{text}{hint}"))
        wanted.add(above.issuer_name)


def _check_key(chain: Sealed, key: Sealed) -> None:
    """Raises Unusable."""
    content = key.read()
    try:
        labels = [label for label, _ in pem_blocks(content)]
        if not any(label.endswith(KEY_LABEL) for label in labels):
            parameters = " (only parameters)" if labels == ["EC PARAMETERS"] else ""
            raise Unusable(Defect(key.file, f"holds no private key: there is no BEGIN PRIVATE KEY in it{parameters}"))
    except ValueError as exc:
        raise Unusable(Defect(key.file, f"holds no private key that can be read: {exc}")) from None
    finally:
        content[:] = bytes(len(content))
    try:
        ServerContexts([Pair(chain.fileno(), key.fileno())])
    except BadCertificate as exc:
        beside = "" if chain.file == key.file else f" with {chain.file!r}"
        raise Unusable(Defect(key.file, f"cannot be used{beside}: {exc}")) from None


def day(at: float) -> str:
    return iso_time(at)[:10]
