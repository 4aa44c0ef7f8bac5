"""The file that holds a certificate chain and its key: written whole or not at all, and what it says of its lifetime.

One file, so that the two halves always fit. Knows PEM files; does not know who issued them.
"""

import contextlib
import os
from dataclasses import dataclass

from lbproxy.wire.certificate import CERTIFICATE_LABELS, pem_blocks, read_certificate


@dataclass(frozen=True, slots=True)
class Lifetime:
    not_before: float
    not_after: float
    stands_in: bool  # it is self-signed: one that was made until the first comes


def read_lifetime(file: str) -> Lifetime | None:
    """None where there is no certificate that can be read."""
    try:
        with open(file, "rb") as opened:
            content = opened.read()
        leaf = read_certificate(_ders(content)[0])
    except (OSError, ValueError, IndexError):
        return None
    return Lifetime(leaf.not_before, leaf.not_after, leaf.issuer_name == leaf.subject_name)


def check_answer(chain: bytes, domains: tuple[str, ...], now: float) -> Lifetime:
    """Whether a chain that has come is good for the domains. Raises ValueError."""
    ders = _ders(chain)
    if not ders:
        raise ValueError("its answer holds no certificate")
    leaf = read_certificate(ders[0])
    missing = set(domains) - set(leaf.names)
    if missing:
        raise ValueError(f"its certificate does not name {', '.join(sorted(missing))}")
    if leaf.not_after <= now:
        raise ValueError("its certificate has expired already (is this machine's clock right?)")
    return Lifetime(leaf.not_before, leaf.not_after, stands_in=False)


def write_whole(file: str, content: bytes) -> None:
    """Only this user may read it. Raises OSError."""
    directory = os.path.dirname(file)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    new = f"{file}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new)
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())
    os.rename(new, file)
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _ders(content: bytes) -> list[bytes]:
    return [bytes(der) for label, der in pem_blocks(bytearray(content)) if label in CERTIFICATE_LABELS]
