"""A grpcio server, threaded or (--aio) on asyncio: see grpc_words.py. With the health and reflection services."""

import asyncio
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

sys.path.insert(0, str(Path(__file__).parent))
from grpc_words import (
    CANCELLED,
    CHAT,
    COLLECT,
    COUNT,
    HOLD,
    OPTIONS,
    SEEN,
    SERVICE,
    SET_HEALTH,
    UNARY,
    address,
    arguments,
    who,
)

THREADS = 100
cancelled: list[str] = []
seen: dict[str, str] = {}


def asked(context: Any) -> dict[str, Any]:
    metadata = dict(context.invocation_metadata())
    seen.clear()
    seen.update({key: repr(value) for key, value in metadata.items()})
    seen["peer-deadline"] = repr(context.time_remaining())
    return metadata


def heads(metadata: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    """The initial metadata: who answers, and all that the call gave as x-echo-…"""
    echoed = ((key, value) for key, value in metadata.items() if key.startswith("x-echo-"))
    return (("x-who", who()), *echoed)


def trailers(metadata: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple((key, metadata[key]) for key in ("x-late", "x-late-bin") if key in metadata)


def failure(metadata: dict[str, Any]) -> tuple[grpc.StatusCode, str] | None:
    if "x-fail" not in metadata:
        return None
    name, _, text = metadata["x-fail"].partition(":")
    return grpc.StatusCode[name], text


def answer(request: bytes, metadata: dict[str, Any]) -> bytes:
    return bytes(int(metadata["x-size"])) if "x-size" in metadata else request


class Threaded:
    """The methods of the threaded server."""

    def __init__(self, health: Any) -> None:
        self.health = health

    def unary(self, request: bytes, context: Any) -> bytes:
        metadata = asked(context)
        if "x-gzip" in metadata:
            context.set_compression(grpc.Compression.Gzip)
        time.sleep(float(metadata.get("x-sleep", 0)))
        if (failed := failure(metadata)) is not None:
            context.set_trailing_metadata(trailers(metadata))
            context.abort(*failed)
        context.send_initial_metadata(heads(metadata))
        context.set_trailing_metadata(trailers(metadata))
        return answer(request, metadata)

    def collect(self, requests: Iterator[bytes], context: Any) -> bytes:
        sizes = [len(one) for one in requests]
        return b"%d %d" % (len(sizes), sum(sizes))

    def count(self, request: bytes, context: Any) -> Iterator[bytes]:
        metadata = asked(context)
        context.set_trailing_metadata(trailers(metadata))
        for number in range(1, int(request) + 1):
            yield b"%d" % number + bytes(int(metadata.get("x-size", 0)))
            time.sleep(float(metadata.get("x-sleep", 0)))
        if (failed := failure(metadata)) is not None:
            context.abort(*failed)

    def chat(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        context.add_callback(lambda: cancelled.append("chat") if context.code() is None else None)
        context.send_initial_metadata(heads(asked(context)))
        for one in requests:
            if one == b"end":
                return
            yield one

    def hold(self, request: bytes, context: Any) -> bytes:
        over = threading.Event()
        context.add_callback(over.set)
        over.wait(60)
        cancelled.append(request.decode())
        return b""

    def cancelled(self, request: bytes, context: Any) -> bytes:
        return ",".join(cancelled).encode()

    def seen(self, request: bytes, context: Any) -> bytes:
        return repr(dict(seen)).encode()

    def set_health(self, request: bytes, context: Any) -> bytes:
        self.health.set("", health_pb2.HealthCheckResponse.ServingStatus.Value(request.decode()))
        return who().encode()


class Asynchronous:
    """The methods of the asyncio server."""

    def __init__(self, health: Any) -> None:
        self.health = health

    async def unary(self, request: bytes, context: Any) -> bytes:
        metadata = asked(context)
        if "x-gzip" in metadata:
            context.set_compression(grpc.Compression.Gzip)
        await asyncio.sleep(float(metadata.get("x-sleep", 0)))
        if (failed := failure(metadata)) is not None:
            await context.abort(*failed, trailers(metadata))
        await context.send_initial_metadata(heads(metadata))
        context.set_trailing_metadata(trailers(metadata))
        return answer(request, metadata)

    async def collect(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        sizes = [len(one) async for one in requests]
        return b"%d %d" % (len(sizes), sum(sizes))

    async def count(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        metadata = asked(context)
        context.set_trailing_metadata(trailers(metadata))
        for number in range(1, int(request) + 1):
            yield b"%d" % number + bytes(int(metadata.get("x-size", 0)))
            await asyncio.sleep(float(metadata.get("x-sleep", 0)))
        if (failed := failure(metadata)) is not None:
            await context.abort(*failed)

    async def chat(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        await context.send_initial_metadata(heads(asked(context)))
        try:
            async for one in requests:
                if one == b"end":
                    return
                yield one
        except asyncio.CancelledError:
            cancelled.append("chat")
            raise

    async def hold(self, request: bytes, context: Any) -> bytes:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(request.decode())
            raise
        return b""

    async def cancelled(self, request: bytes, context: Any) -> bytes:
        return ",".join(cancelled).encode()

    async def seen(self, request: bytes, context: Any) -> bytes:
        return repr(dict(seen)).encode()

    async def set_health(self, request: bytes, context: Any) -> bytes:
        await self.health.set("", health_pb2.HealthCheckResponse.ServingStatus.Value(request.decode()))
        return who().encode()


def handlers(methods: Threaded | Asynchronous) -> Any:
    unary = {
        UNARY: methods.unary,
        HOLD: methods.hold,
        CANCELLED: methods.cancelled,
        SEEN: methods.seen,
        SET_HEALTH: methods.set_health,
    }
    table: dict[str, Any] = {name: grpc.unary_unary_rpc_method_handler(method) for name, method in unary.items()}
    table[COLLECT] = grpc.stream_unary_rpc_method_handler(methods.collect)
    table[COUNT] = grpc.unary_stream_rpc_method_handler(methods.count)
    table[CHAT] = grpc.stream_stream_rpc_method_handler(methods.chat)
    return grpc.method_handlers_generic_handler(SERVICE, table)


def first_status(said: str) -> Any:
    return health_pb2.HealthCheckResponse.ServingStatus.Value(said.upper())


def prepare(server: Any, health_servicer: Any, methods: Threaded | Asynchronous, options: Any) -> None:
    server.add_generic_rpc_handlers((handlers(methods),))
    if options.health != "absent":
        health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    names = (health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    if not server.add_insecure_port(address(options.port)):
        sys.exit("cannot bind")


def serve_threaded(options: Any) -> None:
    server = grpc.server(ThreadPoolExecutor(THREADS), options=OPTIONS)
    servicer = health.HealthServicer()
    if options.health != "absent":
        servicer.set("", first_status(options.health))
    prepare(server, servicer, Threaded(servicer), options)
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    server.start()
    over.wait()
    server.stop(options.grace).wait()


async def serve_asynchronous(options: Any) -> None:
    server = grpc.aio.server(options=(*OPTIONS, ("grpc.max_connection_age_ms", options.age_ms)))
    servicer = health.aio.HealthServicer()
    if options.health != "absent":
        await servicer.set("", first_status(options.health))
    prepare(server, servicer, Asynchronous(servicer), options)
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    await server.start()
    await over.wait()
    await server.stop(options.grace)


if __name__ == "__main__":
    chosen = arguments()
    if chosen.aio:
        asyncio.run(serve_asynchronous(chosen))
    else:
        serve_threaded(chosen)
