"""What control and the process that orders certificates tell each other: JSON, one message a line.

Knows the values and their form as text. Control imports it, so it imports no library of others.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any

MOST_LINE_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Order:
    """One certificate that is wanted. `file`: where it is kept, with its key."""

    file: str
    domains: tuple[str, ...]
    server: str
    email: str | None = None
    ca: str | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """To the child: all certificates that are wanted from now on."""

    orders: tuple[Order, ...]


@dataclass(frozen=True, slots=True)
class Served:
    """To the child: every worker answers the challenges of this number."""

    number: int


@dataclass(frozen=True, slots=True)
class Challenges:
    """To control: what the authority will ask for. `answers`: token, and what it wants to read. Empty: it is over."""

    number: int
    answers: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Standing:
    """To control: how an order stands. `next_at`: seconds of the epoch."""

    file: str
    state: str  # ordering | waiting | failed
    why: str = ""
    next_at: float | None = None


Message = Wanted | Served | Challenges | Standing
_KINDS: dict[str, Any] = {kind.__name__: kind for kind in (Wanted, Served, Challenges, Standing)}


def encode(message: Message) -> bytes:
    return json.dumps({"kind": type(message).__name__, **asdict(message)}).encode() + b"\n"


def decode(line: bytes) -> Message:
    """Raises ValueError."""
    try:
        values = json.loads(line)
        kind = _KINDS[values.pop("kind")]
        if kind is Wanted:
            made = [Order(**{**one, "domains": tuple(one["domains"])}) for one in values["orders"]]
            return Wanted(tuple(made))
        if kind is Challenges:
            return Challenges(int(values["number"]), tuple((str(a), str(b)) for a, b in values["answers"]))
        message: Message = kind(**values)
        return message
    except (KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise ValueError(f"not a message: {line[:80]!r}") from exc
