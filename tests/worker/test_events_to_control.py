import socket

import trio
from support.trio_test import trio_test

from lbproxy.link.channel import Channel
from lbproxy.link.messages import ToControl, ToWorker
from lbproxy.telemetry.events import AcceptPaused, LogDropped, Notice
from lbproxy.worker.events_to_control import MOST_WAITING, EventsToControl


@trio_test(timeout_s=8)
async def test_events_arrive_as_what_they_are_and_those_that_find_no_room_are_counted() -> None:
    ours, theirs = socket.socketpair()
    control, worker = Channel(ours, ToControl), Channel(theirs, ToWorker)
    events = EventsToControl(worker)
    for number in range(MOST_WAITING + 5):
        events.emit(Notice(str(number)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run_writer)
        heard = [await control.receive() for _ in range(MOST_WAITING)]
        assert heard == [Notice(str(number)) for number in range(MOST_WAITING)]
        await worker.wait_sent()
        events.emit(AcceptPaused("public", "too many"))
        assert [await control.receive(), await control.receive()] == [LogDropped(5), AcceptPaused("public", "too many")]
        ours_gone = worker.wait_sent
        control.close()
        events.emit(Notice("nobody hears this"))
        await ours_gone()
        nursery.cancel_scope.cancel()
    worker.close()
