"""One test for many small cases: `@each(CASES)` calls the function with each of them, and names all that fail.

A parametrized test costs about 4 ms for each case: every process of the suite collects it, then it is scheduled, set up
and reported. Where a case itself takes less and there are hundreds, that is most of the price. Nothing separates the
cases, so the function must leave nothing behind, and takes no fixtures.
"""

from collections.abc import Callable, Iterable
from itertools import product
from typing import Any

import pytest


def each(*cases: Iterable[Any], name: Callable[..., str] = repr) -> Callable[[Callable[..., None]], Callable[[], None]]:
    """With more than one iterable: every combination, an argument from each of them."""
    combinations = list(product(*cases))
    assert combinations, "no case"

    def decorate(check: Callable[..., None]) -> Callable[[], None]:
        def test() -> None:
            failed: list[str] = []
            first: BaseException | None = None
            for combination in combinations:
                try:
                    check(*combination)
                except (Exception, pytest.fail.Exception) as exc:
                    failed.append(f"{', '.join(map(name, combination))}: {type(exc).__name__}: {exc}")
                    first = first or exc
            if failed:
                raise AssertionError(f"{len(failed)} of {len(combinations)}\n" + "\n".join(failed)) from first

        test.__name__, test.__doc__ = check.__name__, check.__doc__
        return test

    return decorate
