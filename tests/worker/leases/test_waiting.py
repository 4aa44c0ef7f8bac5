"""What is told to who has waited in vain."""

from dataclasses import replace

import pytest
from support.routing import ONE, routing

from lbproxy.settings import PoolLimits
from lbproxy.worker.leases.waiting import HOPELESS, why_nobody


@pytest.mark.parametrize(
    ("changes", "token", "reason"),
    [
        ({}, "destination_unavailable", "no backend is ready"),
        ({"is_hopeless": True}, "destination_unavailable", HOPELESS),
        ({"resting": (ONE,)}, "destination_unavailable", "the pool is paused"),
        ({"maintenance": "soon"}, "destination_unavailable", "maintenance"),
        (
            {"backends": (ONE,), "limits": PoolLimits(connections=1)},
            "connection_limit_reached",
            "every backend has as many connections as it may",
        ),
    ],
)
def test_the_reason_is_the_real_one(changes: dict[str, object], token: str, reason: str) -> None:
    with routing() as bench:
        pool = replace(bench.pool(), **changes)  # type: ignore[arg-type]
    error = why_nobody(pool)
    assert (error.status, error.token, error.reason) == (503, token, reason)
    assert error.page == (changes.get("maintenance") or "")


def test_a_pool_that_is_gone_is_said() -> None:
    assert why_nobody(None).reason == "the pool is gone"
