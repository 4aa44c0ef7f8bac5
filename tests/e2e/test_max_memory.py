"""A backend that grows over `max_memory` is replaced under traffic. One that starts too big waits."""

import json
import re
from pathlib import Path

import pytest
from support.load import load
from support.serve import serving
from support.web import web

# "/grow" makes the process that answers it grow by 80 MiB, and so does a file "fat" at its start.
APP = """
import http.server, os
grown = [os.urandom(1 << 20) * 80] if os.path.exists("fat") else []

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        if self.path == "/grow":
            grown.append(os.urandom(1 << 20) * 80)
        body = os.environ["LBPROXY_SLOT"].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass

http.server.ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
"""
RESTART = 'max_memory = "64MiB"\nstop_timeout = "3s"'


@pytest.mark.long
def test_a_backend_that_grows_is_replaced_and_no_request_is_lost(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    config = web(command="$python $dir/app.py", health="", restart=RESTART)
    with serving(config, tmp_path) as lb, load(lb.port) as clients:
        before = {backend["id"]: backend["pid"] for backend in lb.backends()}
        (tmp_path / "fat").touch()
        slot = lb.get("/grow").body.decode()
        lb.wait_log('"event":"reload.finished"')
        after = {backend["id"]: backend["pid"] for backend in lb.backends()}
        assert [id for id in before if before[id] != after[id]] == [f"web.{slot}"]
        lb.wait_log("it is replaced again in")
        assert {backend["id"]: backend["pid"] for backend in lb.backends()} == after
        records = [json.loads(line) for line in lb.cli("history", "--json").stdout.splitlines()]
        [record] = records
        facts = [record[key] for key in ("verb", "backend", "result", "generation", "failed", "cut")]
        assert facts == ["recycle", f"web.{slot}", "ok", 1, 0, 0]
        assert record["asked_by"] == {"how": "max_memory"}
        assert re.fullmatch(r"uses \d+ MiB, more than max_memory 64MiB", record["why"])
        assert f"web.{slot}" in lb.cli("history").stdout
        clients.wait_more(50)
    assert clients.lost == []
