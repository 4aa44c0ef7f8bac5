"""A time of Trio's clock survives a document: both clocks go on, and Trio's begins anew with each run."""

import time

import trio

from lbproxy.supervise.handed_on import handed_time, taken_time


def test_a_time_is_as_long_ago_in_the_next_run():
    async def before():
        return handed_time(trio.current_time() - 100.0), handed_time(trio.current_time() + 50.0)

    async def after(past, future):
        return trio.current_time() - taken_time(past), taken_time(future) - trio.current_time()

    began = time.monotonic()
    past, future = trio.run(before)
    ago_s, left_s = trio.run(after, past, future)
    took_s = time.monotonic() - began
    assert 100.0 <= ago_s <= 100.0 + took_s
    assert 50.0 - took_s <= left_s <= 50.0
