"""The one spelling of facts that the log, JSON and the terminal share: a number with its noun, a JSON object as a line.

Cheap to import: every client command uses it.
"""

import json
from typing import Any


def count(number: int, one: str, many: str | None = None) -> str:
    """`1 request`, `2 requests`; `many` where the plural is not the singular and an s."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def compact(values: Any) -> str:
    """JSON on one line, without blanks between its parts."""
    return json.dumps(values, separators=(",", ":"))
