"""The events of `lbproxy upgrade`: see events.py."""

from dataclasses import dataclass

from lbproxy.telemetry.event import Event


@dataclass(frozen=True, slots=True)
class UpgradeStarted(Event):
    name = "upgrade.started"
    upgrade: str
    from_version: str
    asked_by: dict[str, int | str] | None = None  # uid, pid, how


@dataclass(frozen=True, slots=True)
class UpgradeProved(Event):
    """The installed program has passed its trial. It is executed next."""

    name = "upgrade.proved"
    upgrade: str
    version: str
    after_s: float
    backends: int  # that it adopts
    workers: int  # that it replaces


@dataclass(frozen=True, slots=True)
class UpgradeDone(Event):
    """The last event of an upgrade: the last worker of the program before is gone, or nothing has happened."""

    name = "upgrade.done"
    upgrade: str
    result: str  # ok | failed
    exit_code: int
    from_version: str
    version: str  # that runs now
    duration_s: float
    why: str | None = None
    output: tuple[str, ...] = ()  # of a trial that failed
    asked_by: dict[str, int | str] | None = None
