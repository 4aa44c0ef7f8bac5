"""Errors of backends are told to control in few messages, and only of pools that want it."""

from dataclasses import replace

from support.routing import ONE, TWO, routing

from lbproxy.link.messages import BackendErrors
from lbproxy.model import PoolView
from lbproxy.worker.error_reports import ErrorReports


def pool(*, reports_errors: bool) -> PoolView:
    with routing() as bench:
        return replace(bench.pool(ONE, TWO), reports_errors=reports_errors)


def test_errors_are_counted_until_they_are_settled() -> None:
    posted: list[BackendErrors] = []
    firsts: list[int] = []
    web = pool(reports_errors=True)
    reports = ErrorReports(lambda name: web if name == "web" else None, posted.append)
    reports.on_first = lambda: firsts.append(1)
    for why in ("reset", "refused"):
        reports.note(ONE, why)
    reports.note(TWO, "late")
    assert (posted, len(firsts)) == ([], 1)
    reports.settle()
    assert posted == [BackendErrors("web.1@1", 2, "refused"), BackendErrors("web.2@1", 1, "late")]
    reports.settle()
    assert len(posted) == 2
    reports.note(ONE, "reset")
    assert len(firsts) == 2


def test_a_pool_without_passive_and_one_that_is_gone_tell_nothing() -> None:
    posted: list[BackendErrors] = []
    for found in (pool(reports_errors=False), None):
        ErrorReports(lambda name, found=found: found, posted.append).note(ONE, "reset")  # type: ignore[misc]
    assert posted == []
