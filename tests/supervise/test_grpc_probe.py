"""Probes over HTTP/2: grpcio's own health service, and what other servers may say."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from support.http2_answering import Said, answering
from support.trio_test import trio_test

from lbproxy.address import Address
from lbproxy.settings import HealthSettings, PoolSettings
from lbproxy.supervise.probe import ProbeResult, probe
from lbproxy.wire.grpc import message

HEAD = [(":status", "200"), ("content-type", "application/grpc")]
OK = [("grpc-status", "0")]
NAME = "grpc.health.v1.Health/Check"


def pool(**more: object) -> PoolSettings:
    return PoolSettings("api", protocol="h2c", health=HealthSettings(**{"grpc": True, "timeout_s": 5.0, **more}))


@contextmanager
def grpc_server(*services: health.HealthServicer) -> Iterator[Address]:
    server = grpc.server(ThreadPoolExecutor(2))
    for service in services:
        health_pb2_grpc.add_HealthServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield Address("127.0.0.1", port)
    finally:
        server.stop(None).wait()


@trio_test(timeout_s=20)
async def test_a_server_passes_as_long_as_its_health_service_says_serving() -> None:
    service = health.HealthServicer()
    with grpc_server(service) as address:
        for state, passes in (("SERVING", True), ("NOT_SERVING", False), ("SERVING", True)):
            service.set("", health_pb2.HealthCheckResponse.ServingStatus.Value(state))
            assert await probe(address, pool()) == ProbeResult(passes, f"{NAME} answered {state}")


@trio_test(timeout_s=20)
async def test_a_server_without_the_service_is_told_so() -> None:
    with grpc_server() as address:
        result = await probe(address, pool())
    assert not result.passed
    assert result.detail == f"{NAME} answered UNIMPLEMENTED: Method not found!"


@pytest.mark.parametrize(
    ("said", "passed", "detail"),
    [
        (Said(HEAD, message(b"\x08\x01"), OK), True, "answered SERVING"),
        (Said(HEAD, message(b"\x12\x02ab\x08\x01"), OK), True, "answered SERVING"),
        (Said(HEAD, message(b""), OK), False, "answered UNKNOWN"),
        (Said(HEAD, message(b"\x08\x03"), OK), False, "answered SERVICE_UNKNOWN"),
        (Said(HEAD, message(b"\x08\x63"), OK), False, "answered 99"),
        (Said(HEAD, message(b"\x08"), OK), False, "the answer is not a HealthCheckResponse"),
        (Said(HEAD, message(b"\x0d\x01"), OK), False, "the answer is not a HealthCheckResponse"),
        (Said(HEAD, message(b"\x12\x7f"), OK), False, "the answer is not a HealthCheckResponse"),
        (Said(HEAD, b"", OK), False, "answered without a message"),
        (Said(HEAD, b"\1" + message(b"\x08\x01")[1:], OK), False, "answered without a message"),
        (Said([*HEAD, ("grpc-status", "12")]), False, "answered UNIMPLEMENTED: the server has no health service"),
        (Said([*HEAD, ("grpc-status", "5"), ("grpc-message", "a%20b")]), False, "answered NOT_FOUND: a b"),
        (Said([*HEAD, ("grpc-status", "77")]), False, "answered status 77"),
        (Said([(":status", "404")]), False, "answered 404: this is not a gRPC server"),
        (Said([(":status", "200")], b"ok"), False, "answered 200: this is not a gRPC server"),
    ],
)
@trio_test(timeout_s=10)
async def test_every_answer_is_told_in_words(said: Said, passed: bool, detail: str) -> None:
    asked: list[dict[str, str]] = []

    def answer(fields: dict[str, str], body: bytes) -> Said:
        asked.append({**fields, "body": body.hex()})
        return said

    async with answering(answer) as address:
        result = await probe(address, pool(host="a.example", headers=(("X-Probe", "1"),)))
    assert result == ProbeResult(passed, f"{NAME} {detail}")
    (request,) = asked
    assert (request[":method"], request[":path"], request[":authority"]) == ("POST", f"/{NAME}", "a.example")
    assert (request["content-type"], request["te"], request["body"]) == ("application/grpc", "trailers", "0000000000")
    assert (request["grpc-timeout"], request["x-probe"]) == ("5000m", "1")


@trio_test(timeout_s=10)
async def test_a_server_that_says_nothing_or_no_http_2_fails_the_probe() -> None:
    async with answering(lambda fields, body: Said(is_open=True)) as address:
        result = await probe(address, pool(timeout_s=0.05))
    assert result == ProbeResult(False, f"{NAME}: no answer within 0.05s")
    async with answering(lambda fields, body: Said(raw=b"HTTP/1.1 400 Bad Request\r\n\r\n")) as address:
        result = await probe(address, pool())
    assert (result.passed, result.detail.startswith(f"{NAME}: this is not HTTP/2: ")) == (False, True)


@trio_test(timeout_s=10)
async def test_a_path_is_asked_for_over_http_2() -> None:
    def answer(fields: dict[str, str], body: bytes) -> Said:
        return Said([(":status", "503" if fields[":path"] == "/bad" else "204")])

    async with answering(answer) as address:
        assert await probe(address, pool(grpc=False, path="/ok")) == ProbeResult(True, "GET /ok answered 204")
        assert await probe(address, pool(grpc=False, path="/bad")) == ProbeResult(False, "GET /bad answered 503")
