"""[events] of a real lbproxy: a webhook that gets a reload's events, whose URL and secret no child process inherits."""

import hashlib
import hmac
import json
from contextlib import closing
from pathlib import Path

import psutil
import pytest
import redis
from support.ports import free_port
from support.receiver import receiver
from support.serve import serving
from support.web import web

SECRETS = {"HOOK_URL": "http://127.0.0.1:{port}/SESAME", "HOOK_SECRET": "OPEN-SESAME"}
HOOK = '[events]\nwebhook = { url = "env:HOOK_URL", secret = "env:HOOK_SECRET", events = [EVENTS] }\n'


def test_a_webhook_gets_what_it_wants_in_order_and_nobody_learns_its_url(tmp_path: Path) -> None:
    with receiver() as hook:
        hook.answers = [503, 302, 204]
        environment = {name: value.format(port=hook.port) for name, value in SECRETS.items()}
        config = web(more=HOOK.replace("EVENTS", '"reload.*", "backend.ready"'), size=1, workers=1)
        with serving(config, tmp_path, environment=environment) as lb:
            assert lb.cli("reload").returncode == 0
            hook.wait(2 + 5)
            assert hook.names() == [
                *["backend.ready"] * 3,  # two tries failed: the first answer was 503, the second a redirect
                *("reload.started", "backend.ready", "reload.done", "reload.finished"),
            ]
            first, again = hook.got[1:3]
            assert (first.path, first.body) == (again.path, again.body)
            assert first.headers["X-Lbproxy-Delivery"] == again.headers["X-Lbproxy-Delivery"]
            signature = hmac.new(b"OPEN-SESAME", first.body, hashlib.sha256).hexdigest()
            assert first.headers["X-Lbproxy-Signature"] == f"sha256={signature}"
            assert hook.got[5].json()["result"] == "ok"

            # Reloads read the variables although no process inherits them.
            hook.answers = [204]
            lb.write_config(config.replace('"backend.ready"', '"backend.stopped"'))
            assert lb.cli("reload").returncode == 0
            hook.wait(2 + 5 + 4)
            assert sorted(hook.names()[7:]) == ["backend.ready", "reload.done", "reload.finished", "reload.started"]
            for process in lb.processes():
                if process.pid != lb.pid:
                    assert not SECRETS.keys() & process.environ().keys(), process.cmdline()
            assert "SESAME" not in lb.log()
            assert "SESAME" not in json.dumps(lb.status())
            assert "SESAME" not in " ".join(psutil.Process(lb.pid).cmdline())


@pytest.mark.peer("redis-server")
def test_events_are_published_in_redis_and_a_webhook_that_is_down_delays_nothing(tmp_path: Path) -> None:
    port, dead = free_port(), free_port()
    redis_server = f"redis-server --bind {{host}} --port {{port}} --save '' --appendonly no --dir {tmp_path}"
    more = f'''
[pool.cache]
command = "{redis_server}"
[[listener]]
address = "127.0.0.1:{port}"
mode = "tcp"
pool = "cache"
[events]
redis = {{ url = "redis://127.0.0.1:{port}/0", channel = "deploys", events = ["reload.*"] }}
webhook = {{ url = "http://127.0.0.1:{dead}/" }}
'''
    config = web(more=more, size=1, workers=1).replace('name = "public"', 'name = "public"\npool = "web"')
    with serving(config, tmp_path) as lb, closing(redis.Redis(port=port)) as client, client.pubsub() as subscriber:
        subscriber.subscribe("deploys")
        assert subscriber.get_message(timeout=5)["type"] == "subscribe"
        assert lb.cli("reload", "web").returncode == 0
        messages = [subscriber.get_message(timeout=5) for _ in range(3)]
        heard = [json.loads(message["data"])["event"] for message in messages if message is not None]
        assert heard == ["reload.started", "reload.done", "reload.finished"]
        lb.wait_log("events: the webhook does not take events: connection refused")
        lb.wait_until(lambda: lb.log().count("does not take events") == 1)
