"""Run an async test in Trio, with real time or with a clock that jumps to the next deadline."""

import functools
from collections.abc import Awaitable, Callable
from typing import Any

import trio
import trio.testing


def trio_test(
    test: Callable[..., Awaitable[None]] | None = None, *, clock: str = "real", timeout_s: float = 30.0
) -> Callable[..., Any]:
    """`@trio_test` or `@trio_test(clock="autojump")`. A test that outlasts `timeout_s` (of its clock) fails."""
    if test is None:
        return functools.partial(trio_test, clock=clock, timeout_s=timeout_s)

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        async def main() -> None:
            with trio.fail_after(timeout_s):
                await test(*args, **kwargs)

        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0) if clock == "autojump" else None)

    return run
