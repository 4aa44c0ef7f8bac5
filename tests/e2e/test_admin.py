"""[admin] of a real lbproxy: who may read and change, what children inherit, events over a reload, the end."""

import base64
import contextlib
import http.client
import json
import subprocess
from pathlib import Path
from typing import Any

from support.serve import LONGEST_WAIT_S, Answer, Serving, serving
from support.web import web

TOKEN = "s3cr3t-s3cr3t-s3cr3t"
ADMIN = '[admin]\naddress = "127.0.0.1:$port2"\n'


def ask(lb: Serving, method: str, path: str, values: Any = None, **fields: str) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", lb.ports["port2"], timeout=LONGEST_WAIT_S)
    body = None if values is None else json.dumps(values)
    with contextlib.closing(connection):
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in fields.items()})
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())


def test_an_open_desk_can_be_read_and_ends_last(tmp_path: Path) -> None:
    with serving(web(more=ADMIN, restart='stop_timeout = "3s"'), tmp_path) as lb:
        assert ask(lb, "GET", "/v1/status").json()["pools"]["web"]["ready"] == 2
        assert ask(lb, "GET", "/readyz").json() == {"ready": True}
        assert ask(lb, "GET", "/livez", Host="evil.com").status == 421
        assert b'lbproxy_backends{pool="web",state="ready"}' in ask(lb, "GET", "/metrics").body
        assert ask(lb, "GET", "/v1/logs").status == 404
        assert lb.get("/").status == 200
        metrics = ask(lb, "GET", "/metrics")
        assert metrics.headers["Content-Type"].startswith("text/plain")
        assert b'lbproxy_http_requests_total{code="200",method="GET",pool="web"} 1.0' in metrics.body
        assert ask(lb, "POST", "/v1/stop", {}, Content_Type="application/json").status == 403
        a_second_one_is_refused(lb)
        with subprocess.Popen(lb.command("events", "-f"), stdout=subprocess.PIPE, text=True) as following:
            assert following.stdout is not None
            assert "web.1@1" in lb.cli("events").stdout
            told = [json.loads(line) for line in lb.cli("events", "--since", "10m", "--json").stdout.splitlines()]
            assert [event["id"] for event in told] == sorted({event["id"] for event in told})
            assert {"backend.starting", "backend.ready"} <= {event["event"] for event in told}
            assert lb.cli("reload").returncode == 0
            seen = [event["event"] for event in events_after(lb, told[-1]["id"])]
            assert (seen[0], seen[-1]) == ("reload.started", "reload.finished")
            lb.stop()
            output = following.stdout.read()
            assert following.wait() == 0, "a normal end is no broken connection"
        assert "reloaded web to generation 2" in output
        assert "stopping (SIGTERM)" in output


def a_second_one_is_refused(lb: Serving) -> None:
    other, port = lb.config.parent / "other.toml", lb.ports["port2"]
    other.write_text(
        f'[proxy]\ncontrol = "{lb.control}2"\n[[listener]]\naddress = "unix:o.sock"\n'
        f'[pool.web]\ntargets = ["127.0.0.1:9"]\n[admin]\naddress = "127.0.0.1:{port}"\n'
    )
    command = [*lb.command()[:3], "-c", str(other), "serve"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert done.stderr == f"lbproxy: [admin] cannot listen on 127.0.0.1:{port}: address already in use\n"


def events_after(lb: Serving, id: int) -> list[dict[str, Any]]:
    """As an EventSource that comes back gets them."""
    answer = ask(lb, "GET", "/v1/events?follow=0", Last_Event_ID=str(id))
    assert answer.headers["Content-Type"] == "text/event-stream"
    return [json.loads(line.removeprefix(b"data: ")) for line in answer.body.splitlines() if line.startswith(b"data")]


def test_a_token_opens_the_desk_for_changes_and_no_child_inherits_it(tmp_path: Path) -> None:
    config = web(more=f'{ADMIN}token = "env:DESK_TOKEN"')
    with serving(config, tmp_path, environment={"DESK_TOKEN": TOKEN}) as lb:
        assert lb.cli("check").returncode == 78, "this shell does not have the variable"
        children = [process for process in lb.processes() if process.pid != lb.pid]
        assert len(children) >= 4
        assert not any("DESK_TOKEN" in process.environ() for process in children)
        basic = "Basic " + base64.b64encode(f"me:{TOKEN}".encode()).decode()
        assert ask(lb, "GET", "/livez").status == 200
        assert ask(lb, "GET", "/v1/status").status == 401
        status = ask(lb, "GET", "/v1/status", Authorization=basic)
        assert status.status == 200
        assert TOKEN.encode() not in status.body
        bearer = f"Bearer {TOKEN}"
        assert ask(lb, "POST", "/v1/reload", {}, Authorization=bearer).status == 415
        reload = ask(lb, "POST", "/v1/reload", {}, Authorization=bearer, Content_Type="application/json")
        assert reload.status == 200
        assert json.loads(reload.body.splitlines()[-1])["exit_code"] == 0
        lb.write_config(web(more=f'{ADMIN}token = "{TOKEN}-2"'))
        assert lb.cli("reload", "--config-only").returncode == 0
        assert ask(lb, "GET", "/v1/status", Authorization=bearer).status == 401
        assert ask(lb, "GET", "/v1/status", Authorization=f"{bearer}-2").status == 200
        lb.write_config(web())
        assert lb.cli("reload", "--config-only").returncode == 0
        lb.wait_until(lambda: not answers(lb))
        assert TOKEN not in lb.log()


def answers(lb: Serving) -> bool:
    try:
        return ask(lb, "GET", "/livez").status == 200
    except OSError:
        return False
