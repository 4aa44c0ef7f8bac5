"""Real servers behind TCP mode of a real lbproxy, with real clients: Redis, PostgreSQL, TLS passed through."""

import json
import os
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from time import monotonic
from typing import Any

import pg8000.exceptions
import pg8000.native
import pytest
import redis
from support.apps.scripted import Peer, scripted
from support.postgres import USER, WHERE, postgres
from support.serve import Serving, serving

LISTENER = '[[listener]]\naddress = "127.0.0.1:$port"\nmode = "tcp"\npool = "store"\n'
REDIS = f"""
{LISTENER}
[pool.store]
command = "redis-server --bind {{host}} --port {{port}} --save '' --appendonly no --dir $dir"
[pool.store.reload]
min_ready = "0s"
[pool.store.drain]
tcp = "3s"
"""
TARGET = f"""
{LISTENER}
[pool.store]
targets = ["{{target}}"]
[pool.store.reload]
min_ready = "0s"
[pool.store.drain]
tcp = "2500ms"
"""


def reload(lb: Serving) -> dict[str, Any]:
    lines = [json.loads(line) for line in lb.api("POST", "/v1/reload", {}).body.splitlines()]
    return next(line for line in lines if line["event"] == "reload.done")


@pytest.mark.peer("redis-server")
def test_redis_finishes_what_it_has_and_starts_anew(tmp_path: Path) -> None:
    verdicts: list[dict[str, Any]] = []
    popped: list[Any] = []
    with serving(REDIS, tmp_path) as lb:
        with closing(redis.Redis(port=lb.port)) as client:
            old = client.info("server")["run_id"]
            assert client.set("key", b"v" * 300_000)
            assert client.get("key") == b"v" * 300_000
            with client.pipeline(transaction=True) as pipeline:
                for number in range(3000):
                    pipeline.rpush("list", number)
                assert pipeline.execute()[-1] == 3000

            blocked = redis.Redis(port=lb.port)
            blocked.ping()
            popping = threading.Thread(target=lambda: popped.append(blocked.blpop(["queue"], timeout=10)))
            popping.start()
            lb.wait_until(lambda: client.info("clients")["blocked_clients"] == 1)
            reloading = threading.Thread(target=lambda: verdicts.append(reload(lb)))
            reloading.start()
            lb.wait_log('"backend.draining"')
            assert client.llen("list") == 3000, "a session in use stays where it is"

            def is_another() -> bool:
                with closing(redis.Redis(port=lb.port)) as fresh:
                    return fresh.info("server")["run_id"] != old and fresh.get("key") is None

            lb.wait_until(is_another)
            client.rpush("queue", "at last")
            popping.join()
            blocked.close()
        reloading.join()
        assert popped == [(b"queue", b"at last")]
        assert (verdicts[0]["result"], verdicts[0]["cut"], verdicts[0]["failed"]) == ("ok", 0, 0)


@pytest.mark.peer("redis-server")
def test_a_subscriber_who_stays_is_cut_at_the_grace_and_comes_back(tmp_path: Path) -> None:
    config = REDIS.replace('tcp = "3s"', 'tcp = "500ms"')
    with serving(config, tmp_path) as lb, closing(redis.Redis(port=lb.port)) as client, client.pubsub() as subscriber:
        subscriber.subscribe("news")
        assert subscriber.get_message(timeout=5)["type"] == "subscribe"
        assert reload(lb)["cut"] >= 1
        lost = False
        deadline = monotonic() + 10
        while monotonic() < deadline:
            with suppress(redis.ConnectionError):
                client.publish("news", "fresh")
                message = subscriber.get_message(timeout=0.2)
                if message is not None and message["type"] == "message":
                    assert message["data"] == b"fresh"
                    return
                continue
            lost = True
        raise AssertionError(f"no news after the reload; lost: {lost}")


@pytest.fixture(scope="module")
def database() -> Iterator[int]:
    with postgres() as port:
        yield port


def connected(lb: Serving) -> pg8000.native.Connection:
    return pg8000.native.Connection(USER, host="127.0.0.1", port=lb.port, database="postgres", timeout=15)


@pytest.mark.peer("postgres", "initdb")
def test_postgresql_commits_a_transaction_that_a_reload_found_open(tmp_path: Path, database: int) -> None:
    config = TARGET.replace("{target}", f"{WHERE[0]}:{database}")
    verdicts: list[dict[str, Any]] = []
    with serving(config, tmp_path) as lb:
        idle, busy = connected(lb), connected(lb)
        idle.run("create table t (n int, text text)")
        busy.run("begin")
        busy.run("insert into t select n, repeat('x', 1000) from generate_series(1, 2000) n")
        lb.write_config(TARGET.replace("{target}", f"{WHERE[1]}:{database}"))
        reloading = threading.Thread(target=lambda: verdicts.append(reload(lb)))
        reloading.start()
        lb.wait_log('"backend.draining"')
        assert busy.run("select pg_sleep(1.2), 'slept'")[0][1] == "slept"
        busy.run("commit")
        busy.close()
        reloading.join()
        assert verdicts[0]["cut"] == 1, "the idle session stayed until its grace was over"
        with pytest.raises((pg8000.exceptions.InterfaceError, OSError)):
            idle.run("select 1")
        with suppress(pg8000.exceptions.InterfaceError, OSError):
            idle.close()
        again = connected(lb)
        assert again.run("select count(*), sum(length(text)), inet_server_addr()::text from t") == [
            [2000, 2_000_000, f"{WHERE[1]}/32"]
        ]
        rows = again.run("select n, text from t order by n")
        assert [row[0] for row in rows] == list(range(1, 2001))
        again.run("drop table t")
        again.close()


@pytest.mark.peer("openssl")
def test_tls_passes_through_untouched(tmp_path: Path) -> None:
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    files = ["-keyout", f"{tmp_path}/key.pem", "-out", f"{tmp_path}/cert.pem"]
    subprocess.run([*command, "-addext", "subjectAltName=DNS:localhost", *files], check=True, capture_output=True)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(f"{tmp_path}/cert.pem", f"{tmp_path}/key.pem")
    server.set_alpn_protocols(["h2", "http/1.1"])
    client = ssl.create_default_context(cafile=f"{tmp_path}/cert.pem")
    client.set_alpn_protocols(["h2"])

    def echo(peer: Peer) -> None:
        with server.wrap_socket(peer.sock, server_side=True) as sock:
            while data := sock.recv(65536):
                sock.sendall(data)
            sock.unwrap()

    text = os.urandom(1 << 20)
    with scripted(echo) as old, scripted(echo) as new:
        config = TARGET.replace("{target}", f"127.0.0.1:{old.port}")
        with serving(config, tmp_path / "lb") as lb:
            with client.wrap_socket(lb.connect(), server_hostname="localhost") as sock:
                assert sock.selected_alpn_protocol() == "h2"
                sock.sendall(b"hello")
                assert sock.recv(100) == b"hello"
                lb.write_config(TARGET.replace("{target}", f"127.0.0.1:{new.port}"))
                reloading = threading.Thread(target=reload, args=(lb,))
                reloading.start()
                lb.wait_log('"backend.draining"')
                sending = threading.Thread(target=sock.sendall, args=(text,))
                sending.start()
                heard = b""
                while len(heard) < len(text):
                    heard += sock.recv(65536)
                sending.join()
                assert heard == text
                sock.unwrap().close()
            reloading.join()
            lb.wait_log('"failed":0,"cut":0')
