"""reload.before, reload.after and warm_up on a real lbproxy, and what is left of a hook that takes too long."""

import json
import os
import sys
import threading
from pathlib import Path

import psutil
from support.serve import serving
from support.web import web


def hooks(before: str = "", after: str = "", **more: str) -> str:
    reload = 'min_ready = "0s"\n'
    reload += f"before = {json.dumps([sys.executable, '-c', before])}\n" if before else ""
    reload += f"after = {json.dumps([sys.executable, '-c', after])}\n" if after else ""
    return web('env = { WHO = "hook" }', reload=reload + more.pop("reload", ""), **more)


AFTER = """
import json, os
record = json.load(open(os.environ["LBPROXY_REPORT"]))
facts = [os.environ[name] for name in ("LBPROXY_RESULT", "LBPROXY_FROM_GENERATION", "LBPROXY_GENERATION", "WHO")]
print(json.dumps([facts, record["result"], record["id"], record["pool"], os.getcwd()]), file=open("told", "a"))
raise SystemExit(3)
"""


def told(directory: Path) -> list[object]:
    return [json.loads(line) for line in (directory / "told").read_text().splitlines()]


def test_the_hooks_of_a_reload(tmp_path: Path) -> None:
    config = hooks("print('checking'); import os; assert os.environ['LBPROXY_GENERATION'] == '2'", AFTER)
    with serving(config, tmp_path) as lb:
        done = lb.cli("reload")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "web.before | checking" in lb.log() or '"backend":"web.before","line":"checking"' in lb.log()
        assert "web: reload.after: exit code 3" in done.stdout
        assert told(tmp_path) == [[["ok", "1", "2", "hook"], "ok", "r1", "web", str(tmp_path)]]
        before = {backend["pid"] for backend in lb.backends()}
        done = lb.cli("reload")
        assert done.returncode == 5
        assert "reload.before: exit code 1" in done.stdout
        assert "AssertionError" in done.stdout
        assert done.stdout.splitlines()[-1].startswith("rolled back web to generation 2 in ")
        assert {backend["pid"] for backend in lb.backends()} == before, "nothing was made"
        assert told(tmp_path)[1] == [["rolled_back", "2", "3", "hook"], "rolled_back", "r2", "web", str(tmp_path)]
        assert not [name for name in os.listdir("/tmp") if name.startswith("report")]


SLOW = "import subprocess, sys, time; subprocess.Popen(['sleep', '97']); print('slow', flush=True); time.sleep(97)"


def test_a_hook_that_takes_too_long_ends_with_its_children_and_can_be_aborted(tmp_path: Path) -> None:
    health = 'path = "/healthz"\ninterval = "500ms"\nstart_timeout = "1500ms"'
    with serving(hooks(SLOW, health=health), tmp_path) as lb:
        done = lb.cli("reload")
        assert done.returncode == 5
        assert "reload.before: not over within 1.5s" in done.stdout
        assert not [one for one in lb.processes() if "97" in one.cmdline()]
        lb.write_config(hooks(SLOW, health=health.replace("1500ms", "60s")))
        results = []
        reload = threading.Thread(target=lambda: results.append(lb.cli("reload")))
        reload.start()
        lb.wait_until(lambda: (lb.status()["pools"]["web"]["reload"] or {}).get("step") == "before hook")
        lb.wait_until(lambda: lb.log().count('"line":"slow"') == 2)
        assert lb.cli("abort").returncode == 0
        reload.join()
        assert results[0].returncode == 1
        assert not [one for one in lb.processes() if one.status() != psutil.STATUS_ZOMBIE and "97" in one.cmdline()]


def test_new_backends_are_warmed_up_before_they_are_proved(tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    app.write_text(
        "import http.server, os\n"
        "class Handler(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        open('asked', 'a').write(os.environ['LBPROXY_GENERATION'] + self.path + '\\n')\n"
        "        self.send_error(500)\n"
        "    def log_message(self, *args): pass\n"
        "http.server.HTTPServer((os.environ['HOST'], int(os.environ['PORT'])), Handler).serve_forever()\n"
    )
    config = hooks(reload='warm_up = ["/", "/prices"]', command=f"$python {app}", health="", size=1)  # type: ignore[arg-type]
    with serving(config, tmp_path) as lb:
        assert lb.cli("reload").returncode == 0
        assert (tmp_path / "asked").read_text().split() == ["2/", "2/prices"]
