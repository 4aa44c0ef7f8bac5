"""Events in a real Redis."""

import subprocess
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import redis
from support.ports import free_port
from support.trio_test import trio_test

from lbproxy.control.event_sink import Delivery, NotDelivered
from lbproxy.control.redis_publisher import RedisPublisher

EVENT = Delivery("1-1", "reload.done", b'{"event":"reload.done"}')


@contextmanager
def redis_server(directory: Path, *options: str):
    port = free_port()
    command = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(directory)]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True) as server:
        try:
            for line in server.stdout:
                if "Ready to accept" in line:
                    break
            yield port
        finally:
            server.terminate()
            server.communicate()


@pytest.mark.peer("redis-server")
@trio_test(timeout_s=20)
async def test_an_event_is_published_on_its_channel(tmp_path):
    with redis_server(tmp_path, "--requirepass", "sesame") as port:
        url = f"redis://:sesame@127.0.0.1:{port}/0"
        with closing(redis.Redis.from_url(url)) as client, client.pubsub() as subscriber:
            subscriber.subscribe("deploys")
            assert subscriber.get_message(timeout=5)["type"] == "subscribe"
            with closing(RedisPublisher(url, "deploys")) as publisher:
                await publisher.deliver(EVENT)
                message = subscriber.get_message(timeout=5)
                assert (message["channel"], message["data"]) == (b"deploys", EVENT.body)
        with (
            closing(RedisPublisher(f"redis://:wrong@127.0.0.1:{port}/0", "deploys")) as publisher,
            pytest.raises(NotDelivered, match=r"^the server refused user or password$"),
        ):
            await publisher.deliver(EVENT)


@trio_test(timeout_s=20)
async def test_a_server_that_is_not_there_is_told_without_its_name():
    with (
        closing(RedisPublisher(f"redis://:sesame@127.0.0.1:{free_port()}/0", "deploys")) as publisher,
        pytest.raises(NotDelivered, match=r"^connection refused$"),
    ):
        await publisher.deliver(EVENT)


def test_what_the_library_does_not_take_is_a_value_error():
    with pytest.raises(ValueError):
        RedisPublisher("mailto:me", "deploys")
