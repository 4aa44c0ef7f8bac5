"""The process that orders certificates: reads what control wants, and ends when control's end of the link is closed."""

import os

import trio

from lbproxy.acme.certificate_file import Lifetime
from lbproxy.acme.issue import Answers, issue
from lbproxy.acme.keeper import Keeper, Serve
from lbproxy.acme.messages import MOST_LINE_BYTES, Message, Order, Served, Wanted, decode, encode
from lbproxy.privileges import renounce

_RECEIVE_BYTES = 65536


def run() -> None:
    renounce(None)
    link = os.dup(1)
    os.dup2(2, 1)  # what a library prints is no message

    def say(message: Message) -> None:
        data = encode(message)
        while data:
            data = data[os.write(link, data) :]

    try:
        trio.run(_attend, Keeper(_issue_in_thread, say))
    except* BrokenPipeError:
        pass  # control is gone
    finally:
        os._exit(0)  # a thread may still wait for an answer


async def _issue_in_thread(order: Order, serve: Serve) -> Lifetime:
    """An order that is not wanted any more is left to itself: it cannot have its challenges served."""

    def serve_from_thread(answers: Answers) -> None:
        trio.from_thread.run(serve, answers)

    return await trio.to_thread.run_sync(issue, order, serve_from_thread, abandon_on_cancel=True)


async def _attend(keeper: Keeper) -> None:
    async with trio.open_nursery() as nursery, trio.lowlevel.FdStream(os.dup(0)) as orders:
        received = b""
        while data := await orders.receive_some(_RECEIVE_BYTES):
            *lines, received = (received + data).split(b"\n")
            if len(received) > MOST_LINE_BYTES:
                break
            for line in lines:
                match decode(line):
                    case Wanted(wanted):
                        keeper.want(wanted, nursery)
                    case Served(number):
                        keeper.served(number)
        nursery.cancel_scope.cancel()
