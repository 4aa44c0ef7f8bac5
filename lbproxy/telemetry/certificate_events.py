"""What happens to certificates: see events.py."""

from dataclasses import dataclass

from lbproxy.telemetry.event import Event


@dataclass(frozen=True, slots=True)
class CertificateLoaded(Event):
    """New connections get this certificate. `listeners`: their names; "admin" is that of [admin]."""

    name = "certificate.loaded"
    file: str
    names: tuple[str, ...]
    not_after: str  # ISO 8601
    listeners: tuple[str, ...]
    reload: str | None = None


@dataclass(frozen=True, slots=True)
class CertificateRejected(Event):
    """A file has changed and cannot be used: what was read before stays in use."""

    name = "certificate.rejected"
    level = "error"
    file: str
    why: str
    listeners: tuple[str, ...]
    reload: str | None = None


@dataclass(frozen=True, slots=True)
class CertificateExpiring(Event):
    name = "certificate.expiring"
    level = "warning"
    file: str
    names: tuple[str, ...]
    not_after: str
    days_left: int  # 0: less than a day; negative: it has expired
    listeners: tuple[str, ...]
