"""pause, maintenance, drain and undrain on a real lbproxy: what waits, what goes on, what is told."""

import os
import signal
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from support.serve import Answer, Serving, serving
from support.web import web
from support.ws import dial, following


class Asked:
    """A request in a thread of its own."""

    def __init__(self, ask: Callable[[], Answer]) -> None:
        self.answer: Answer | None = None
        self._thread = threading.Thread(target=self._run, args=(ask,))
        self._thread.start()

    def _run(self, ask: Callable[[], Answer]) -> None:
        self.answer = ask()

    def wait(self) -> Answer:
        self._thread.join()
        assert self.answer is not None
        return self.answer


def pool(lb: Serving) -> dict[str, Any]:
    found = lb.status()["pools"]["web"]
    assert isinstance(found, dict)
    return found


def waiting(lb: Serving) -> int:
    """Connections that are with the task lane, where requests wait."""
    return sum(worker["express"]["phases"].get("away", 0) for worker in lb.status()["workers"])


def test_requests_wait_while_a_pool_is_paused_and_websockets_go_on(tmp_path: Path) -> None:
    config = web('bind = "fd"', command="$longlived", size=2)
    with serving(config, tmp_path) as lb, ExitStack() as stack:
        end = dial(lb.port, "/ws")
        stack.enter_context(following(end))
        end.send("before")
        assert lb.cli("pause", "web").stdout == "web: requests wait, until lbproxy unpause web\n"
        assert "paused: requests wait, until lbproxy unpause web" in lb.cli("status").stdout
        assert pool(lb)["paused"] == {"maintenance": False, "max_wait_s": None}
        asked = [Asked(lambda: lb.get("/")) for _ in range(20)]
        lb.wait_until(lambda: waiting(lb) >= 20)
        end.send("meanwhile")
        lb.wait_until(lambda: "meanwhile" in "".join(map(str, end.heard.messages)))
        assert not end.heard.closes
        assert lb.cli("unpause", "web").returncode == 0
        assert {one.wait().status for one in asked} == {200}
        assert lb.cli("unpause", "web").stderr == "lbproxy: web is not paused\n"
        assert lb.cli("pause", "nope").returncode == 2
        end.close(1000, "")


def test_a_pause_ends_for_each_request_and_survives_a_worker(tmp_path: Path) -> None:
    with serving(web(), tmp_path) as lb:
        assert lb.cli("pause", "web", "--max-wait", "300ms").returncode == 0
        answer = lb.get("/")
        assert answer.status == 503
        assert b"the pool is paused" in answer.body
        assert answer.headers["Retry-After"] == "1"
        (worker,) = lb.status()["workers"]
        os.kill(worker["pid"], signal.SIGKILL)
        lb.wait_until(lambda: [one for one in lb.status()["workers"] if one["pid"] != worker["pid"]])
        lb.wait_until(lambda: all(one["state"] == "serving" for one in lb.status()["workers"]))
        assert lb.get("/").status == 503
        assert lb.cli("reload").returncode == 0
        assert lb.get("/").status == 503, "it stays paused until it is told otherwise"
        page = tmp_path / "page.html"
        page.write_text("<h1>Back at noon</h1>")
        done = lb.cli("pause", "web", "--maintenance", "--message", f"@{page}")
        assert done.stdout == "web: requests are answered with 503, until lbproxy unpause web\n"
        answer = lb.get("/")
        assert (answer.status, answer.body) == (503, b"<h1>Back at noon</h1>")
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        assert answer.headers["Retry-After"] == "1"
        page.write_text("é" * 32768)
        assert lb.cli("pause", "web", "--maintenance", "--message", f"@{page}").returncode == 0
        assert lb.get("/").body == page.read_bytes()
        for endless in (page.write_text("x" * 65537) and page, "/dev/zero"):
            done = lb.cli("pause", "web", "--maintenance", "--message", f"@{endless}")
            assert (done.returncode, done.stderr) == (2, f"lbproxy: --message: {endless}: more than 65536 bytes\n")
        assert lb.cli("pause", "web", "--maintenance").returncode == 0
        assert b"maintenance" in lb.get("/").body
        assert pool(lb)["ready"] == 2, "probes are answered"
        assert lb.api("GET", "/readyz").status == 200
        assert lb.cli("unpause", "web").returncode == 0
        assert lb.get("/").status == 200
        for wrong in (["--message", "x"], ["--maintenance", "--max-wait", "1s"], ["--max-wait", "soon"]):
            assert lb.cli("pause", "web", *wrong).returncode == 2
        assert lb.cli("pause", "web", "--maintenance", "--message", "@/nowhere").returncode == 2
        assert lb.get("/").status == 200


def test_a_drained_backend_gets_no_work_until_it_is_undrained_or_replaced(tmp_path: Path) -> None:
    with serving(web(restart='backoff = { first = "0s" }'), tmp_path) as lb:
        slow = Asked(lambda: lb.get("/slow?s=1"))
        lb.wait_until(lambda: any(backend["in_flight"] for backend in lb.backends()))
        name = next(backend["id"] for backend in lb.backends() if backend["in_flight"])
        other = "web.1" if name == "web.2" else "web.2"
        done = lb.cli("drain", name)
        assert done.returncode == 0, done.stdout + done.stderr
        assert slow.answer is not None, "it returns when nothing is in hand"
        assert slow.wait().status == 200
        assert done.stdout.splitlines()[-1].startswith(f"drained {name} in ")
        states = {backend["id"]: backend["state"] for backend in lb.backends()}
        assert states == {name: "drained", other: "ready"}
        assert lb.cli("status").returncode == 0
        for _ in range(8):
            lb.get("/")
        served = {backend["id"]: backend["requests_total"] for backend in lb.backends()}
        assert served == {name: 1, other: 8}
        done = lb.cli("drain", other)
        assert (done.returncode, done.stderr) == (
            1,
            f"lbproxy: {other} is the last ready backend of its pool: --force drains it all the same\n",
        )
        (pid,) = (backend["pid"] for backend in lb.backends() if backend["id"] == name)
        os.kill(pid, signal.SIGKILL)
        lb.wait_until(lambda: any(one["id"] == name and one["pid"] not in (pid, None) for one in lb.backends()))
        lb.wait_until(lambda: "drained" in {one["state"] for one in lb.backends()})
        assert lb.cli("undrain", name).returncode == 0
        assert {backend["state"] for backend in lb.backends()} == {"ready"}
        assert lb.cli("undrain", name).stderr == f"lbproxy: {name} is not drained\n"
        for _ in range(8):
            lb.get("/")
        assert all(backend["requests_total"] for backend in lb.backends())
        assert lb.cli("drain", "web.7").returncode == 1
        assert lb.cli("drain", "web").returncode == 2
        assert lb.cli("drain", name).returncode == 0
        assert lb.cli("drain", other, "--force").returncode == 0
        assert lb.cli("reload").returncode == 0
        assert {backend["state"] for backend in lb.backends()} == {"ready"}
        assert lb.get("/").status == 200
