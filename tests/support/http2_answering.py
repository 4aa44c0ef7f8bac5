"""A small HTTP/2 server on python-hyper's h2, in the test's own event loop: each request gets what a function says.

async with answering(lambda fields, body: Said([(":status", "200")], b"hello")) as address: ...
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial

import trio
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded

from lbproxy.address import Address

Fields = Sequence[tuple[str, str]]


@dataclass
class Said:
    """`reset`: the error code of an RST_STREAM in place of an end. `raw`: bytes in place of frames."""

    head: Fields = ()
    body: bytes = b""
    trailers: Fields = ()
    reset: int | None = None
    raw: bytes | None = None
    is_open: bool = False  # nothing ends it


Answering = Callable[[dict[str, str], bytes], Said]


@asynccontextmanager
async def answering(answer: Answering) -> AsyncIterator[Address]:
    async with trio.open_nursery() as nursery:
        serve = partial(_serve, answer)
        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield Address("127.0.0.1", listener.socket.getsockname()[1])
        nursery.cancel_scope.cancel()


async def _serve(answer: Answering, stream: trio.SocketStream) -> None:
    h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
    h2.initiate_connection()
    fields: dict[str, str] = {}
    body = b""
    with suppress(trio.BrokenResourceError):
        await stream.send_all(h2.data_to_send())
        while data := await stream.receive_some(65536):
            for event in h2.receive_data(data):
                if isinstance(event, RequestReceived):
                    fields = dict(event.headers)
                elif isinstance(event, DataReceived):
                    body += event.data
                elif isinstance(event, StreamEnded):
                    said = answer(fields, body)
                    if said.raw is not None:
                        await stream.send_all(said.raw)
                        await stream.send_eof()
                        while await stream.receive_some(65536):  # a close with bytes unread would be a reset
                            pass
                        return
                    _say(h2, event.stream_id, said)
            await stream.send_all(h2.data_to_send())


def _say(h2: H2Connection, stream_id: int, said: Said) -> None:
    ends = not said.is_open and said.reset is None
    if said.head:
        h2.send_headers(stream_id, list(said.head), end_stream=ends and not said.body and not said.trailers)
    if said.body:
        h2.send_data(stream_id, said.body, end_stream=ends and not said.trailers)
    if said.trailers:
        h2.send_headers(stream_id, list(said.trailers), end_stream=True)
    if said.reset is not None:
        h2.reset_stream(stream_id, said.reset)
