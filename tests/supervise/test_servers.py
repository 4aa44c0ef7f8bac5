"""The usual servers, behind every kind of `bind`: uvicorn, gunicorn, Node (PEERS.md 6)."""

import os
import shutil
import sys
from dataclasses import replace

import pytest
import trio
from support.children import QUICK, pool, server_pool, stage
from support.trio_test import trio_test

from lbproxy.settings import PoolSettings
from lbproxy.supervise.probe import probe

ASGI = """
async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"asgi"})
"""
WSGI = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Length", "4")])
    return [b"wsgi"]
"""
NODE = """
const where = process.env.LISTEN_FDS ? {fd: 3} : process.env.LBPROXY_SOCKET ? {path: process.env.LBPROXY_SOCKET}
    : {host: process.env.HOST, port: +process.env.PORT};
require("http").createServer((request, response) => response.end("node")).listen(where);
"""
UVICORN = (sys.executable, "-m", "uvicorn", "--lifespan", "off", "app:app")
GUNICORN = (sys.executable, "-m", "gunicorn", "app:app")
needs_node = pytest.mark.peer("node")


@pytest.mark.parametrize(
    ("code", "command", "bind"),
    [
        (ASGI, (*UVICORN, "--port", "{port}"), "tcp"),
        (ASGI, (*UVICORN, "--uds", "{socket}"), "unix"),
        (ASGI, (*UVICORN, "--fd", "{fd}"), "fd"),
        (WSGI, (*GUNICORN, "-b", "{host}:{port}"), "tcp"),
        (WSGI, (*GUNICORN, "-b", "unix:{socket}"), "unix"),
        (WSGI, GUNICORN, "fd"),
        pytest.param(NODE, ("node", "app.js"), "tcp", marks=needs_node),
        pytest.param(NODE, ("node", "app.js"), "unix", marks=needs_node),
        pytest.param(NODE, ("node", "app.js"), "fd", marks=needs_node),
    ],
)
@trio_test
async def test_a_server_becomes_ready_and_stops(tmp_path, code, command, bind):
    if command[0] == "node" and shutil.which("node") is None:
        pytest.skip("node is not installed")
    (tmp_path / ("app.js" if command[0] == "node" else "app.py")).write_text(code)
    health = replace(QUICK, interval_s=0.25, start_timeout_s=20.0)
    async with stage() as here:
        backend = here.backend(pool(*command, bind=bind, directory=str(tmp_path), health=health))
        await backend.wait_ready()
        address = backend.backend.address
        assert await backend.stop() in ("exit code 0", "TERM")
        answer = await probe(address, PoolSettings("web", health=health))
        assert not answer.passed  # our copy of an inherited socket is closed


@pytest.mark.parametrize("bind", ["tcp", "unix", "fd"])
@trio_test
async def test_every_bind_works_and_a_dead_backend_refuses(bind):
    async with stage() as here:
        backend = here.backend(server_pool(bind=bind))
        await backend.wait_ready()
        address = backend.backend.address
        os.kill(backend.backend.pid, 9)
        while backend.backend.restarts < 1:
            await backend.wait_change()
        assert not (await probe(address, PoolSettings("web", health=QUICK))).passed


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
@pytest.mark.parametrize("bind", ["tcp", "unix", "fd"])
@trio_test
async def test_every_bind_works_for_another_user(bind):
    python = "/usr/bin/python3"
    if not os.path.exists(python):
        pytest.skip("no interpreter that another user may execute")
    async with stage() as here:
        settings = server_pool(bind=bind, user="daemon")
        backend = here.backend(replace(settings, command=(python, *settings.command[1:])))
        await backend.wait_ready()
        assert os.stat(f"/proc/{backend.backend.pid}").st_uid == 1
        with trio.fail_after(5):
            await backend.stop()
