import trio
from support.trio_test import trio_test

from lbproxy.model import BackendId
from lbproxy.supervise.output import OutputRing
from lbproxy.supervise.output_forwarder import OutputForwarder
from lbproxy.telemetry.events import BackendOutput, Notice

ID = BackendId("web", 3, 7)


@trio_test(clock="autojump")
async def test_every_line_is_emitted_with_its_backend_and_kept():
    events, ring = [], OutputRing()
    OutputForwarder(ID, ring, events.append).take([b"one", b"\xff"])
    assert events == [BackendOutput("web.3@7", "one"), BackendOutput("web.3@7", "\\xff")]
    assert ring.newest == 2


@trio_test(clock="autojump")
async def test_a_flood_is_kept_but_not_logged_whole_and_that_is_said():
    events, ring = [], OutputRing()
    forwarder = OutputForwarder(ID, ring, events.append, per_s=lambda: 10)
    forwarder.take([b"x"] * 100)
    assert len(events) == 10
    assert ring.newest == 100
    await trio.sleep_until(forwarder.report_at)
    forwarder.report()
    assert isinstance(events[-1], Notice)
    assert "web.3@7 wrote 90 more lines" in events[-1].text
    forwarder.take([b"y"])
    assert events[-1] == BackendOutput("web.3@7", "y")


@trio_test(clock="autojump")
async def test_what_was_held_back_is_said_at_the_end():
    events = []
    forwarder = OutputForwarder(ID, OutputRing(), events.append, per_s=lambda: 1)
    forwarder.take([b"x"] * 5)
    forwarder.report(over=True)
    assert "4 more lines" in events[-1].text


@trio_test(clock="autojump")
async def test_with_no_lines_a_second_the_log_gets_none_and_the_ring_all():
    events, ring = [], OutputRing()
    forwarder = OutputForwarder(ID, ring, events.append, per_s=lambda: 0)
    forwarder.take([b"x"] * 5)
    forwarder.report(over=True)
    assert events == []
    assert ring.newest == 5
