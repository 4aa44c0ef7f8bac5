"""The status document as a command has it: asked for, narrowed to one pool, and judged.

Knows the document (CONTRACT.md 3). Shows nothing.
"""

from typing import Any

from lbproxy.cli.client import ControlClient
from lbproxy.cli.options import Fail

DEGRADED = 4
USAGE = 2


def status_of(client: ControlClient, pool: str | None) -> dict[str, Any]:
    """The status document, of one pool if it is named."""
    answer: dict[str, Any] = client.get("/v1/status")
    if pool is not None:
        if pool not in answer["pools"]:
            raise Fail(USAGE, f"lbproxy: no pool '{pool}' (there is: {', '.join(answer['pools'])})")
        answer["pools"] = {pool: answer["pools"][pool]}
    return answer


def exit_code(answer: dict[str, Any]) -> int:
    return DEGRADED if workers_missing(answer) or any(is_degraded(one) for one in answer["pools"].values()) else 0


def workers_missing(answer: dict[str, Any]) -> int:
    """How many of the wanted workers do not serve."""
    serving = sum(worker["state"] == "serving" for worker in answer["workers"])
    missing: int = max(0, answer.get("workers_wanted", 0) - serving)
    return missing


def is_degraded(pool: dict[str, Any]) -> bool:
    """Fewer than all serve as they should. More than all is a reload."""
    return bool(pool["ready"] < pool["size"] - pool.get("drained", 0))
