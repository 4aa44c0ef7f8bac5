"""What is remembered of failed exchanges, and how it is found."""

import pytest
from support.trio_test import trio_test

from control.fakes import FakeWorkers
from lbproxy.control.api_server import Declined
from lbproxy.control.failures import MOST, FailedExchanges
from lbproxy.link.messages import FailedExchange, Failures, Try


def failed(id, tries=()):
    return FailedExchange(0.0, 0.25, "127.0.0.1", "GET /", id, "web", "web.2@1", 502, "error", "reason", tries)


@trio_test
async def test_the_last_ones_are_found_by_their_id():
    workers = FakeWorkers()
    found = FailedExchanges(workers)
    workers.hearers[Failures](1, Failures((failed("first"), *(failed(f"id{n}") for n in range(MOST - 1))), 0))
    assert len((await found.why("first"))["failures"]) == 1
    workers.hearers[Failures](2, Failures((failed("twice", (Try("web.1@1", "refused", 0.1),)), failed("twice")), 3))
    first, second = (await found.why("twice"))["failures"]
    assert first["tries"] == [{"backend": "web.1@1", "after_s": 0.1, "why": "refused"}]
    assert (first["time"], first["status"], second["tries"]) == ("1970-01-01T00:00:00.000Z", 502, [])
    with pytest.raises(Declined, match="no failed exchange 'first' among the last 10000; 3 were too many") as declined:
        await found.why("first")
    assert (declined.value.answer.status, declined.value.answer.values["exit_code"]) == (404, 1)
    with pytest.raises(Declined):
        await found.why("")
