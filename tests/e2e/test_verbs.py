"""What an operator asks for besides a reload: rollback, abort, pause and resume, scale, restart. Under traffic."""

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.load import PAUSE_S
from support.serve import Serving, serving
from support.web import web

# Says its release; "broken" in the release ends slot 2, "slow" makes it ready late.
APP = """
import http.server, os, sys, time
release = open("release").read().strip()
if "slow" in release:
    time.sleep(1)
if "broken" in release and os.environ["LBPROXY_SLOT"] == "2":
    sys.exit("no module named nonsense")

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    def do_GET(self):
        body = f"{release} {os.environ['SIZE']}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass

http.server.ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
"""


class Releases:
    """`current`, a symlink to the release that is deployed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "app.py").write_text(APP)

    def deploy(self, name: str) -> None:
        release = self.directory / name
        release.mkdir(exist_ok=True)
        (release / "release").write_text(name)
        new = self.directory / "new"
        new.symlink_to(release)
        new.rename(self.directory / "current")


def config(size: int = 2, reload: str = "") -> str:
    pool = f'directory = "current"\nenv = {{ SIZE = "{size}" }}'
    return web(pool, size=size, command="$python $dir/app.py", health="", reload=f'min_ready = "0s"\n{reload}')


@contextmanager
def traffic(lb: Serving) -> Iterator[None]:
    """Four clients ask all the time; every answer must be a 200."""
    stop, seen, lock = threading.Event(), set[int](), threading.Lock()

    def ask() -> None:
        while not stop.wait(PAUSE_S):
            status = lb.get("/").status
            with lock:
                seen.add(status)

    clients = [threading.Thread(target=ask) for _ in range(4)]
    for client in clients:
        client.start()
    try:
        yield
    finally:
        stop.set()
        for client in clients:
            client.join()
    assert seen == {200}


def pool(lb: Serving) -> dict[str, object]:
    found = lb.status()["pools"]["web"]
    assert isinstance(found, dict)
    return found


def body(lb: Serving) -> str:
    return lb.get("/").body.decode()


def test_rollback_brings_back_all_of_a_generation(tmp_path: Path) -> None:
    releases = Releases(tmp_path)
    releases.deploy("1")
    with serving(config(), tmp_path) as lb:
        done = lb.cli("rollback", "web")
        assert (done.returncode, done.stderr) == (
            1,
            "lbproxy: no generation of web to go back to (kept: none besides the one that serves)\n",
        )
        releases.deploy("2")
        lb.write_config(config(size=3))
        assert lb.cli("reload").returncode == 0
        assert body(lb) == "2 3"
        with traffic(lb):
            done = lb.cli("rollback", "web")
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.splitlines()[-1].startswith("rolled back web: generation 3 (as 1) serves in ")
        assert "not as in the file, until the next reload: env, size, directory" in done.stdout
        assert body(lb) == "1 2"
        found = pool(lb)
        assert (found["generation"], found["size"], found["ready"]) == (3, 2, 2)
        assert found["differs_from_file"] == ["env", "size", "directory"]
        assert "env, size, directory" in lb.cli("status").stdout
        assert lb.cli("scale", "web=3").returncode == 0
        assert pool(lb)["differs_from_file"] == ["env", "size", "directory"]
        assert lb.cli("rollback", "web", "--to", "2").returncode == 0
        assert body(lb) == "2 3"
        done = lb.cli("rollback", "web", "--to", "9")
        assert (done.returncode, done.stderr) == (1, "lbproxy: generation 9 of web is not kept (kept: 3)\n")
        (tmp_path / "1").rename(tmp_path / "gone")
        done = lb.cli("rollback", "web", "--to", "1")
        assert done.returncode == 1
        assert done.stderr == f"lbproxy: generation 3 of web cannot come back: {tmp_path / '1'} does not exist\n"
        assert lb.cli("reload").returncode == 0
        assert pool(lb)["differs_from_file"] == []


def test_abort_turns_around_in_the_middle(tmp_path: Path) -> None:
    releases = Releases(tmp_path)
    releases.deploy("1")
    with serving(config(), tmp_path) as lb:
        done = lb.cli("abort")
        assert (done.returncode, done.stderr) == (1, "lbproxy: nothing to abort: no reload is running\n")
        releases.deploy("slow")
        results = []
        with traffic(lb):
            reload = threading.Thread(target=lambda: results.append(lb.cli("reload")))
            reload.start()
            lb.wait_log('"backend":"web.2@2","pid"')  # the second one starts: the first one serves
            done = lb.cli("abort", "web")
            reload.join()
        assert done.returncode == 0, done.stdout + done.stderr
        assert results[0].returncode == 1
        for stdout in (done.stdout, results[0].stdout):
            assert stdout.splitlines()[-1].startswith("reload of web aborted in ")
        assert {backend["generation"] for backend in lb.backends()} == {1}
        assert pool(lb)["ready"] == 2


def test_a_reload_that_stops_half_way_goes_on_in_each_way(tmp_path: Path) -> None:
    releases = Releases(tmp_path)
    releases.deploy("1")
    with serving(config(reload='on_failure = "pause"'), tmp_path) as lb, traffic(lb):
        for number, verb in enumerate(("abort", "rollback", "resume"), 2):
            releases.deploy(f"broken-{verb}")
            done = lb.cli("reload")
            assert done.returncode == 9, done.stdout + done.stderr
            assert done.stdout.splitlines()[-1].startswith("reload of web stopped half-way in ")
            running = pool(lb)["reload"]
            assert isinstance(running, dict)
            assert (running["step"], running["generation"]) == ("paused", number)
            serving_now = {(backend["id"], backend["generation"]) for backend in lb.backends()}
            assert serving_now == {("web.1", number), ("web.2", 1)}
            done = lb.cli("status")
            assert f"half-way to generation {number}" in done.stdout
            assert "resume, abort or rollback" in done.stdout
            done = lb.cli("reload")
            assert done.returncode == 8
            assert "half-way" in done.stderr
            (tmp_path / f"broken-{verb}" / "release").write_text("mended")
            done = lb.cli(verb, "web")
            assert done.returncode == 0, done.stdout + done.stderr
            assert {backend["generation"] for backend in lb.backends()} == {number if verb == "resume" else 1}
        lb.wait_until(lambda: body(lb) == "mended 2")
        assert pool(lb)["reload"] is None


def test_scale_and_restart(tmp_path: Path) -> None:
    releases = Releases(tmp_path)
    releases.deploy("1")
    with serving(config(), tmp_path) as lb, traffic(lb):
        done = lb.cli("scale", "web=4")
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.splitlines()[-1].startswith("scaled web to 4 until the next reload in ")
        assert (pool(lb)["ready"], pool(lb)["generation"]) == (4, 1)
        assert pool(lb)["differs_from_file"] == ["size"]
        lb.signal(signal.SIGTTOU)
        lb.wait_until(lambda: len(lb.backends()) == 3)
        lb.wait_until(lambda: lb.log().count('"event":"reload.finished","time"') == 2)
        lb.signal(signal.SIGTTIN)
        lb.wait_until(lambda: lb.log().count('"event":"reload.finished","time"') == 3)
        assert pool(lb)["ready"] == 4
        assert lb.cli("scale", "web=1").returncode == 0
        lb.signal(signal.SIGTTOU)
        lb.wait_log("no pool can have one backend less")
        for wrong, code in (("web=0", 1), ("nope=2", 2), ("web", 2), ("web=x", 2)):
            assert lb.cli("scale", wrong).returncode == code
        (before,) = lb.backends()
        done = lb.cli("restart", "web.1", "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        verdict = json.loads(done.stdout.splitlines()[-1])
        assert (verdict["verb"], verdict["result"], verdict["generation"]) == ("restart", "ok", 1)
        assert verdict["backend"] == "web.1"
        (after,) = lb.backends()
        assert after["id"] == before["id"] == "web.1"
        assert after["pid"] != before["pid"]
        assert lb.cli("restart", "web.7").returncode == 1
        assert lb.cli("reload").returncode == 0
        assert pool(lb)["ready"] == 2
