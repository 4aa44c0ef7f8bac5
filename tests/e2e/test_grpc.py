"""gRPC through a real lbproxy: servers and clients of grpcio (threads, asyncio) and grpclib, plain and over TLS."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from support.grpc_client import PATIENCE_S, Streams, calling, channel, failure, unary
from support.http2 import http2
from support.serve import Serving, serving
from support.tls_peer import pem

from support.apps.grpc_server import Threaded, handlers  # isort: skip
from support.apps.grpc_words import (  # isort: skip
    OPTIONS,
    CANCELLED,
    CHAT,
    COLLECT,
    COUNT,
    HOLD,
    SEEN,
    SET_HEALTH,
    UNARY,
    path_of,
)

CONFIG = """
[proxy]
workers = 1
[[listener]]
address = "127.0.0.1:$port"
protocols = ["h2c", "http/1.1"]
pool = "web"
[log]
access = "json"

[pool.web]
command = "$grpc --aio --port {port}"
protocol = "h2c"
health = { grpc = true, interval = "100ms", fall = 1, rise = 1 }
drain = { stream = "1s" }
reload = { min_ready = "0s" }
"""
MANY = (
    CONFIG.replace('pool = "web"\n', "").replace(
        "[log]",
        f"""
[[listener]]
address = "127.0.0.1:$port2"
tls = {{ cert = "{pem()}", key = "{pem()}" }}
[log]""",
    )
    + f"""
[[route]]
pool = "threads"
host = "threads.test"
[[route]]
pool = "secure"
host = "secure.test"
[[route]]
pool = "lib"
host = "lib.test"
[[route]]
pool = "nobody"
host = "nobody.test"
[[route]]
pool = "web"
path = "/lbproxy.test.Echo/"
[[route]]
pool = "web"
path = "/grpc.health.v1.Health/"
[[route]]
pool = "web"
path = "/grpc.reflection.v1alpha.ServerReflection/"

[pool.secure]
targets = ["https://127.0.0.1:$port3"]
protocol = "h2"
tls = {{ ca = "{pem()}" }}
health = {{ grpc = true }}

[pool.threads]
command = "$grpc --port {{port}}"
protocol = "h2c"
health = {{ grpc = true }}

[pool.lib]
command = "$grpclib --port {{port}}"
protocol = "h2c"

[pool.nobody]
targets = ["127.0.0.1:1"]
protocol = "h2c"
health = {{ active = false }}
limits = {{ queue = {{ size = 0, timeout = "1s" }} }}
"""
)
CALL = (("content-type", "application/grpc"), ("te", "trailers"))
BIG = bytes(range(256)) * 16 * 1024  # 4 MB
PARTS = (b"ab", b"cde")


def named(lb: Serving, host: str) -> grpc.Channel:
    return channel(lb.port, options=(("grpc.default_authority", host),))


def secure(lb: Serving) -> grpc.Channel:
    override = (("grpc.ssl_target_name_override", "a.example"),)
    return channel(lb.ports["port2"], ca=pem().read_bytes(), options=override)


@contextmanager
def secure_server(port: int) -> Iterator[None]:
    """A server of this process that asks for TLS."""
    key = pem().read_bytes()
    server = grpc.server(ThreadPoolExecutor(4), options=OPTIONS)
    server.add_generic_rpc_handlers((handlers(Threaded(None)),))
    health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), server)
    server.add_secure_port(f"127.0.0.1:{port}", grpc.ssl_server_credentials([(key, key)]))
    server.start()
    try:
        yield
    finally:
        server.stop(None).wait()


def every_kind(api: grpc.Channel) -> None:
    assert unary(api)(b"hello", timeout=PATIENCE_S) == b"hello"
    assert [*api.unary_stream(path_of(COUNT))(b"3", timeout=PATIENCE_S)] == [b"1", b"2", b"3"]
    assert api.stream_unary(path_of(COLLECT))(iter(PARTS), timeout=PATIENCE_S) == b"2 5"
    assert [*api.stream_stream(path_of(CHAT))(iter(PARTS), timeout=PATIENCE_S)] == [*PARTS]
    failed = failure(lambda: unary(api)(b"", metadata=(("x-fail", "DATA_LOSS:all gone"),), timeout=PATIENCE_S))
    assert (failed.code(), failed.details()) == (grpc.StatusCode.DATA_LOSS, "all gone")


def metadata_passes(api: grpc.Channel) -> None:
    sent = (("x-echo-a-bin", bytes(range(256))), ("x-echo-b", "b, c"), ("x-late", "late"), ("x-late-bin", b"\0\xff"))
    _, call = unary(api).with_call(b"", metadata=sent, timeout=PATIENCE_S)
    initial, trailing = dict(call.initial_metadata()), dict(call.trailing_metadata())
    assert (initial["x-echo-a-bin"], initial["x-echo-b"]) == (bytes(range(256)), "b, c")
    assert trailing == {"x-late": "late", "x-late-bin": b"\0\xff"}
    fail = (("x-fail", "NOT_FOUND:nothing"), ("x-late", "also here"))
    failed = failure(lambda: unary(api)(b"", metadata=fail, timeout=PATIENCE_S))
    assert dict(failed.trailing_metadata())["x-late"] == "also here"


def big_messages_pass(api: grpc.Channel) -> None:
    assert unary(api)(BIG, timeout=PATIENCE_S) == BIG
    parts = [*api.unary_stream(path_of(COUNT))(b"3", metadata=(("x-size", f"{1 << 20}"),), timeout=PATIENCE_S)]
    assert [len(part) for part in parts] == [(1 << 20) + 1] * 3


def compression_passes(api: grpc.Channel) -> None:
    asked = {"metadata": (("x-gzip", "1"),), "compression": grpc.Compression.Gzip, "timeout": PATIENCE_S}
    assert unary(api)(b"z" * 100_000, **asked) == b"z" * 100_000


def a_deadline_reaches_the_backend_and_passes(api: grpc.Channel) -> None:
    began = monotonic()
    failed = failure(lambda: unary(api)(b"", metadata=(("x-sleep", "5"),), timeout=0.3))
    assert failed.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert monotonic() - began < 2
    seen = unary(api, SEEN)(b"", timeout=PATIENCE_S).decode()
    left_s = float(seen.partition("'peer-deadline': '")[2].partition("'")[0])
    assert 0 < left_s < 0.4


def a_cancelled_call_reaches_the_backend(api: grpc.Channel, name: bytes) -> None:
    held = unary(api, HOLD).future(name)
    unary(api)(b"", metadata=(("x-sleep", "0.1"),), timeout=PATIENCE_S)  # by then it has reached the backend
    held.cancel()
    until = monotonic() + PATIENCE_S
    while name not in unary(api, CANCELLED)(b"", timeout=PATIENCE_S):
        assert monotonic() < until


def health_and_reflection_answer(api: grpc.Channel) -> None:
    check = health_pb2_grpc.HealthStub(api).Check
    assert check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S).status == 1
    listing = reflection_pb2.ServerReflectionRequest(list_services="")
    stub = reflection_pb2_grpc.ServerReflectionStub(api)
    (answer,) = stub.ServerReflectionInfo(iter([listing]), timeout=PATIENCE_S)
    assert "grpc.health.v1.Health" in [one.name for one in answer.list_services_response.service]


def an_error_is_told_as_grpc_has_it(lb: Serving) -> None:
    """On the wire: 200, one HEADERS frame with END_STREAM, the status in it; the log has the HTTP status."""
    with http2(lb.port) as client:
        stream = client.request("POST", "/elsewhere", CALL, authority="a.test")
        answer = client.answer(stream)
        assert client.names(stream) == ["HEADERS"]
        assert (answer.status, answer.headers["grpc-status"], bytes(answer.body)) == (200, "12", b"")
        assert answer.headers["proxy-status"].endswith("; error=destination_not_found")
        refused = client.answer(client.request("POST", path_of(UNARY), CALL, authority="nobody.test")).headers
        assert (refused["grpc-status"], "grpc-message" in refused) == ("14", True)
        large = client.answer(client.request("POST", path_of(UNARY), (*CALL, ("x", "y" * 20_000)))).headers
        assert large["grpc-status"] == "8"
        slow = (*CALL, ("grpc-timeout", "300m"), ("x-sleep", "5"))
        stream = client.request("POST", path_of(UNARY), slow, end=False)
        client.send(stream, b"\0\0\0\0\0", end=True)
        answer = client.answer(stream)
        assert dict([*answer.fields, *answer.trailers])["grpc-status"] == "4"
        assert client.get("/elsewhere").status == 404, "a page for who does not speak gRPC"
    lb.wait_until(lambda: '"path":"/elsewhere","status":404' in lb.log())


def its_own_health_decides(lb: Serving, api: grpc.Channel) -> None:
    unary(api, SET_HEALTH)(b"NOT_SERVING", timeout=PATIENCE_S)
    lb.wait_until(lambda: lb.backends()[0]["state"] == "unhealthy")
    assert lb.backends()[0]["why"] == "grpc.health.v1.Health/Check answered NOT_SERVING"
    unary(api, SET_HEALTH)(b"SERVING", timeout=PATIENCE_S)  # the only one serves on: a bad probe is no outage
    lb.wait_until(lambda: lb.backends()[0]["state"] == "ready")


def clients_of_asyncio_get_the_same(lb: Serving) -> None:
    script = Path(__file__).parents[1] / "support" / "apps" / "grpc_clients.py"
    done = subprocess.run([sys.executable, script, "--port", str(lb.port)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout)
    same = {"unary": "hello", "count": ["1", "2", "3", "4"], "collect": "2 5", "chat": ["a", "b"]}
    assert got["grpclib"] == {**same, "failed": ["DATA_LOSS", "gone"]}
    more = {"late": "l", "chat_code": "OK", "cancelled": True, "failed": ["DATA_LOSS", "gone"]}
    assert got["grpcio"] == {**same, **more}


def test_calls_of_every_kind_pass_as_if_nobody_stood_between(tmp_path: Path) -> None:
    with serving(MANY, tmp_path, wait=False) as lb, secure_server(lb.ports["port3"]):
        lb.wait_ready()
        with channel(lb.port) as plain, secure(lb) as tls:
            for number, api in enumerate((plain, tls)):
                every_kind(api)
                metadata_passes(api)
                big_messages_pass(api)
                compression_passes(api)
                a_deadline_reaches_the_backend_and_passes(api)
                a_cancelled_call_reaches_the_backend(api, b"held %d" % number)
                health_and_reflection_answer(api)
            its_own_health_decides(lb, plain)
        for host in ("threads.test", "lib.test", "secure.test"):
            with named(lb, host) as api:
                every_kind(api)
        with named(lb, "threads.test") as api:
            metadata_passes(api)
            big_messages_pass(api)
            compression_passes(api)
            a_cancelled_call_reaches_the_backend(api, b"held")
        an_error_is_told_as_grpc_has_it(lb)
        clients_of_asyncio_get_the_same(lb)


def test_streams_through_reloads_lose_nothing_and_are_told_once(tmp_path: Path) -> None:
    """The long one: loadtest/grpc_reloads.py."""
    with serving(CONFIG, tmp_path) as lb:
        streams = Streams(lb.port, 12)
        streams.start()
        with calling(lb.port) as wrong:
            for _ in range(2):
                done = lb.cli("reload", "web", "--json")
                assert done.returncode == 0, done.stdout + done.stderr
                last = json.loads(done.stdout.splitlines()[-1])
                assert (last["failed"], last["cut"]) == (0, 0)
        streams.stop()
        assert (streams.wrong, streams.trouble, wrong) == ([], [], [])
        assert streams.told
        assert streams.finished
        assert all(one.pushback_ms is not None and one.pushback_ms <= 1000 for one in streams.told)


def test_a_stop_says_goodbye_to_streams_and_finishes_calls(tmp_path: Path) -> None:
    with serving(CONFIG, tmp_path) as lb:
        streams = Streams(lb.port, 4, finite=(10_000,))
        streams.start()
        with channel(lb.port) as api:
            lb.wait_until(lambda: lb.backends()[0]["leases"].get("stream") == 4)
            slow = unary(api).future(b"slow", metadata=(("x-sleep", "2"),))
            lb.wait_until(lambda: lb.backends()[0]["in_flight"] == 5)
            stopped = threading.Thread(target=lb.stop)
            stopped.start()
            assert slow.result(PATIENCE_S) == b"slow"
            stopped.join(PATIENCE_S)
            streams.stop()
        assert len(streams.told) == 4


def test_a_backend_that_does_not_serve_does_not_become_ready_and_says_why(tmp_path: Path) -> None:
    config = CONFIG.replace("$grpc --aio --port", "$grpc --aio --health absent --port")
    config += config[config.index("[pool.web]") :].replace("pool.web", "pool.api").replace("absent", "not_serving")
    with serving(config, tmp_path, wait=False) as lb:
        lb.wait_log('"serve.started"')
        for pool, said in (("web", "answered UNIMPLEMENTED"), ("api", "answered NOT_SERVING")):
            lb.wait_until(lambda pool=pool, said=said: said in str(lb.backends(pool)[0].get("why")))  # type: ignore[misc]
