"""Calls of asyncio's gRPC clients (grpcio's aio, grpclib) through a port; what they got, as one JSON object.

python grpc_clients.py --port 8080
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import grpc
from grpclib import GRPCError
from grpclib.client import Channel, StreamStreamMethod, StreamUnaryMethod, UnaryStreamMethod, UnaryUnaryMethod
from grpclib_server import Raw

sys.path.insert(0, str(Path(__file__).parent))
from grpc_words import CANCELLED, CHAT, COLLECT, COUNT, HOLD, OPTIONS, UNARY, arguments, path_of

PATIENCE_S = 20.0


async def with_grpcio(port: int) -> dict[str, Any]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=OPTIONS) as api:
        call = api.unary_unary(path_of(UNARY))(b"hello", metadata=(("x-late", "l"),), timeout=PATIENCE_S)
        got: dict[str, Any] = {"unary": (await call).decode(), "late": dict(await call.trailing_metadata())["x-late"]}
        counting = api.unary_stream(path_of(COUNT))(b"4", timeout=PATIENCE_S)
        got["count"] = [one.decode() async for one in counting]
        collect = api.stream_unary(path_of(COLLECT))
        got["collect"] = (await collect(_parts(), timeout=PATIENCE_S)).decode()
        talk = api.stream_stream(path_of(CHAT))(timeout=PATIENCE_S)
        got["chat"] = []
        for text in (b"a", b"b"):
            await talk.write(text)
            got["chat"].append((await talk.read()).decode())
        await talk.done_writing()
        got["chat_code"] = (await talk.code()).name
        held = api.unary_unary(path_of(HOLD))(b"held by aio")
        await asyncio.sleep(0.2)  # a call that is cancelled before it leaves reaches nobody
        held.cancel()
        for _ in range(100):
            seen = await api.unary_unary(path_of(CANCELLED))(b"", timeout=PATIENCE_S)
            if b"held by aio" in seen:
                break
            await asyncio.sleep(0.02)
        got["cancelled"] = b"held by aio" in seen
        try:
            await api.unary_unary(path_of(UNARY))(b"", metadata=(("x-fail", "DATA_LOSS:gone"),), timeout=PATIENCE_S)
        except grpc.aio.AioRpcError as exc:
            got["failed"] = [exc.code().name, exc.details()]
        return got


async def _parts() -> Any:
    for part in (b"ab", b"cde"):
        yield part


async def with_grpclib(port: int) -> dict[str, Any]:
    channel = Channel("127.0.0.1", port, codec=Raw())
    try:
        unary = UnaryUnaryMethod(channel, path_of(UNARY), bytes, bytes)
        got: dict[str, Any] = {"unary": (await unary(b"hello", timeout=PATIENCE_S)).decode()}
        counting = UnaryStreamMethod(channel, path_of(COUNT), bytes, bytes)
        got["count"] = [one.decode() for one in await counting(b"4", timeout=PATIENCE_S)]
        collect = StreamUnaryMethod(channel, path_of(COLLECT), bytes, bytes)
        got["collect"] = (await collect([b"ab", b"cde"], timeout=PATIENCE_S)).decode()
        chat = StreamStreamMethod(channel, path_of(CHAT), bytes, bytes)
        got["chat"] = [one.decode() for one in await chat([b"a", b"b"], timeout=PATIENCE_S)]
        try:
            await unary(b"", metadata={"x-fail": "DATA_LOSS:gone"}, timeout=PATIENCE_S)
        except GRPCError as exc:
            got["failed"] = [exc.status.name, exc.message]
        return got
    finally:
        channel.close()


async def main() -> None:
    port = arguments().port
    print(json.dumps({"grpcio": await with_grpcio(port), "grpclib": await with_grpclib(port)}))


if __name__ == "__main__":
    asyncio.run(main())
