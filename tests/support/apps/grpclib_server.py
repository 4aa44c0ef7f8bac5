"""A grpclib server (python-hyper's h2 underneath), with a part of the methods of grpc_words.py."""

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

from grpclib import GRPCError, Status
from grpclib.const import Cardinality, Handler
from grpclib.encoding.base import CodecBase
from grpclib.server import Server, Stream

sys.path.insert(0, str(Path(__file__).parent))
from grpc_words import CHAT, COLLECT, COUNT, UNARY, arguments, path_of, who


class Raw(CodecBase):
    __content_subtype__ = "proto"

    def encode(self, message: bytes, message_type: type) -> bytes:
        return message

    def decode(self, data: bytes, message_type: type) -> bytes:
        return bytes(data)


async def unary(stream: Stream[bytes, bytes]) -> None:
    request = await stream.recv_message()
    metadata = stream.metadata
    await asyncio.sleep(float(metadata.get("x-sleep", 0)))
    if "x-fail" in metadata:
        name, _, text = metadata["x-fail"].partition(":")
        raise GRPCError(Status[name], text)
    await stream.send_initial_metadata(metadata={"x-who": who()})
    await stream.send_message(request or b"")


async def collect(stream: Stream[bytes, bytes]) -> None:
    sizes = [len(one) async for one in stream]
    await stream.send_message(b"%d %d" % (len(sizes), sum(sizes)))


async def count(stream: Stream[bytes, bytes]) -> None:
    for number in range(1, int(await stream.recv_message() or b"0") + 1):
        await stream.send_message(b"%d" % number)


async def chat(stream: Stream[bytes, bytes]) -> None:
    async for one in stream:
        await stream.send_message(one)


class Echo:
    def __mapping__(self) -> dict[str, Any]:
        return {
            path_of(UNARY): Handler(unary, Cardinality.UNARY_UNARY, bytes, bytes),
            path_of(COLLECT): Handler(collect, Cardinality.STREAM_UNARY, bytes, bytes),
            path_of(COUNT): Handler(count, Cardinality.UNARY_STREAM, bytes, bytes),
            path_of(CHAT): Handler(chat, Cardinality.STREAM_STREAM, bytes, bytes),
        }


async def main() -> None:
    server = Server([Echo()], codec=Raw())
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    await server.start("127.0.0.1", arguments().port)
    await over.wait()
    server.close()
    await asyncio.wait_for(server.wait_closed(), 5)


if __name__ == "__main__":
    asyncio.run(main())
