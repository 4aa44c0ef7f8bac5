"""What every event is: a frozen value with a name. The kinds stand in events.py."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Event:
    name: ClassVar[str] = ""
    level: ClassVar[str] = "info"
