"""A real `lbproxy serve` for tests and load tests: started, asked, stopped, and nothing of it may be left.

    with serving(CONFIG, tmp_path) as lb:
        assert lb.get("/").status == 200
        assert lb.cli("reload").returncode == 0

In the configuration $port, $port2 ... become free ports, $python this interpreter, $dir the directory, $origin, $demo,
$uvicorn, $node, $nodehttp2, $hypercorn, $brittle, $longlived, $grpc and $grpclib the commands of `support.apps`; all
other braces and dollars are lbproxy's own.
"""

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import string
import subprocess
import sys
import tempfile
import threading
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import psutil

from support import apps, in_process, over_tls
from support.ports import free_port

MARK = "LBPROXY_TEST_MARK"  # in the environment of everything that descends from one `serve`
LONGEST_WAIT_S = 30.0
# A condition is checked after every line of the log. Without one it is checked after a pause, which grows: most waits
# are short, and a check costs some milliseconds of CPU.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.02, 0.25


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Serving:
    """One running lbproxy."""

    def __init__(self, config: Path, control: str, ports: dict[str, int]) -> None:
        self.config = config
        self.control = control
        self.ports = ports
        self.arguments = ["-c", str(config), "--control", control, "serve"]
        self.output: str | None = None
        self.prefix: Sequence[str] = ()
        self.mark = uuid.uuid4().hex
        self.state = os.path.join(os.path.dirname(control), "state")  # where it keeps what outlives it
        self.bridges = over_tls.Bridges() if over_tls.IS_ON else None
        self.process: subprocess.Popen[bytes] | None = None
        self._lines: list[str] = []
        self._told = threading.Condition()
        self._reader: threading.Thread | None = None

    @property
    def port(self) -> int:
        return self.ports["port"]

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    # -- its output

    def log(self) -> str:
        """The output of `serve` so far, events and access log."""
        with self._told:
            return "".join(self._lines)

    def wait_until(self, condition: Callable[[], object], timeout_s: float = LONGEST_WAIT_S) -> None:
        """Wait for a condition that shows in the log, in `status` or in the processes. A failure shows the log."""
        deadline = monotonic() + timeout_s
        pause_s = FIRST_PAUSE_S
        while not condition():
            with self._told:
                left = deadline - monotonic()
                if left <= 0:
                    raise AssertionError(f"did not come true within {timeout_s} s; the log:\n{''.join(self._lines)}")
                self._told.wait(min(pause_s, left))
            pause_s = min(1.5 * pause_s, LONGEST_PAUSE_S)

    def wait_log(self, text: str, timeout_s: float = LONGEST_WAIT_S) -> None:
        self.wait_until(lambda: text in self.log(), timeout_s)

    def wait_ready(self, timeout_s: float = LONGEST_WAIT_S) -> None:
        """Wait until every pool has all its backends ready and every worker serves."""
        self.wait_until(lambda: self.exited() or self._is_ready(), timeout_s)
        if self.exited():
            raise AssertionError(f"serve ended with {self.process and self.process.returncode}; the log:\n{self.log()}")

    def _is_ready(self) -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
            status = self.status()
            states = [worker["state"] for worker in status["workers"]] or ["not there yet"]
            return all(pool["ready"] >= pool["size"] for pool in status["pools"].values()) and all(
                state == "serving" for state in states
            )
        return False

    def find_control(self) -> str:
        """The path of the control socket, as reported in the log; empty before that."""
        started = [line for line in self.log().splitlines() if '"serve.started"' in line]
        self.control = json.loads(started[-1])["control"] if started else ""
        return self.control

    # -- requests and commands

    def api(self, method: str, target: str, values: dict[str, Any] | None = None) -> Answer:
        """Send a request to the control socket."""
        connection = http.client.HTTPConnection("lbproxy", timeout=LONGEST_WAIT_S)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(LONGEST_WAIT_S)
        with contextlib.closing(connection):
            connection.sock.connect(self.control)
            return _exchange(connection, method, target, {}, None if values is None else json.dumps(values))

    def status(self) -> dict[str, Any]:
        return self.api("GET", "/v1/status").json()

    def backends(self, pool: str = "web") -> list[dict[str, Any]]:
        return self.status()["pools"][pool]["backends"]

    def get(self, path: str = "/", headers: dict[str, str] | None = None) -> Answer:
        """A GET on a connection of its own."""
        return self.request("GET", path, headers)

    def request(
        self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes | None = None
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LONGEST_WAIT_S)
        with contextlib.closing(connection):
            return _exchange(connection, method, path, headers or {}, body)

    def connect(self) -> socket.socket:
        """A raw connection to the first listener."""
        return self.connect_to("port")

    def connect_to(self, name: str) -> socket.socket:
        """A raw connection to the port that the configuration calls `name`."""
        return socket.create_connection(("127.0.0.1", self.ports[name]), timeout=LONGEST_WAIT_S)

    def cli(self, *args: str, timeout_s: float = 120.0) -> subprocess.CompletedProcess[str]:
        """A client command against this lbproxy."""
        if in_process.can_run(args):
            return in_process.run_command(self.options() + list(args))
        return subprocess.run(self.command(*args), capture_output=True, text=True, timeout=timeout_s, check=False)

    def command(self, *args: str) -> list[str]:
        """The words of a client command, for a process of its own."""
        return [*LBPROXY, *self.options(), *args]

    def options(self) -> list[str]:
        return ["-c", str(self.config), "--control", self.control]

    def write_config(self, text: str) -> None:
        """Change the configuration's file; a reload reads it."""
        if self.bridges is not None:
            text = self.bridges.secure(text, self.ports)
        values = defaultdict(free_port, **self.ports)  # a new name, such as $port2, is a new port
        for name in string.Template(text).get_identifiers():
            if name.startswith("port"):
                self.ports[name] = values[name]
        self.config.write_text(string.Template(text).safe_substitute(_WORDS, dir=self.config.parent, **self.ports))

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    # -- start and end

    def start(self, environment: dict[str, str]) -> None:
        """Start `serve`, also for another time after it has ended."""
        if self.process is not None:
            self.process.wait(LONGEST_WAIT_S)
            self._end_reading()
        with contextlib.ExitStack() as opened:
            self.process = subprocess.Popen(
                [*self.prefix, *LBPROXY, *self.arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if self.output is None else opened.enter_context(open(self.output, "wb")),
                stderr=subprocess.STDOUT,
                cwd=self.config.parent,
                env={**os.environ, "STATE_DIRECTORY": self.state, **environment, MARK: self.mark},
                start_new_session=True,
            )
        if self.output is not None:
            return
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._told:
                self._lines.append(line.decode(errors="backslashreplace"))
                self._told.notify_all()

    def exited(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def stop(self, timeout_s: float = LONGEST_WAIT_S) -> int:
        """Send TERM; returns the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        return self.process.wait(timeout_s)

    def processes(self) -> list[psutil.Process]:
        """Every living process that descends from this `serve`, orphans and grandchildren too."""
        return [process for process in psutil.process_iter() if _marked(process, self.mark)]

    def pids_of(self, part: str) -> set[int]:
        """The pids of the processes that have `part` in their command line."""
        found = set()
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                if part in " ".join(process.cmdline()):
                    found.add(process.pid)
        return found

    def wait_nothing_left(self, timeout_s: float = 8.0) -> None:
        """Wait until no process of this `serve` is left."""
        _, alive = psutil.wait_procs(self.processes(), timeout_s)
        left = {process.pid: process.name() for process in alive if process.is_running()}
        assert not left, f"left behind: {left}; the log:\n{self.log()}"

    def kill_all(self) -> None:
        """Kill everything, whatever its state."""
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            self.process.wait()
        self._end_reading()
        if self.bridges is not None:
            self.bridges.close()

    def _end_reading(self) -> None:
        if self._reader is not None and self.process is not None and self.process.stdout is not None:
            self._reader.join(timeout=5)
            self.process.stdout.close()


@contextlib.contextmanager
def serving(
    config: str,
    directory: Path,
    *,
    environment: dict[str, str] | None = None,
    wait: bool = True,
    arguments: Callable[[Serving], list[str]] | None = None,
    output: str | None = None,
    prefix: Sequence[str] = (),
) -> Iterator[Serving]:
    """Run `lbproxy serve`. With `wait`, all backends are ready when the block begins.

    `arguments` replace `-c FILE --control PATH serve`; the control socket is then read from the log. `output` is a file
    for the output of `serve`: then there is no log to look at. `prefix` is a
    command that runs it, such as `unshare`.

    After a block without an error `serve` is stopped (unless the test has done that) and must leave nothing.
    """
    directory.mkdir(parents=True, exist_ok=True)
    short = tempfile.mkdtemp(prefix="lb-")  # the path of a unix socket has at most 107 bytes
    lb = Serving(directory / "lb.toml", f"{short}/control", {"port": free_port()})
    try:
        lb.write_config(config)
        lb.output, lb.prefix = output, prefix
        if arguments is not None:
            lb.arguments, lb.control = arguments(lb), ""
        lb.start(environment or {})
        if arguments is not None:
            lb.wait_until(lambda: lb.exited() or lb.find_control())
        if wait:
            lb.wait_ready()
        yield lb
        ended_by_itself = lb.exited()
        code = lb.stop()
        assert ended_by_itself or code == 0, f"serve ended with {code}; the log:\n{lb.log()}"
        lb.wait_nothing_left()
        assert ended_by_itself or not os.path.exists(lb.control), "the control socket is left behind"
    except BaseException as exc:
        exc.add_note(f"--- the end of lbproxy's log:\n{lb.log()[-6000:]}")
        raise
    finally:
        lb.kill_all()
        shutil.rmtree(short, ignore_errors=True)


LBPROXY = [sys.executable, "-c", "from lbproxy.cli.main import main; main()"]
_WORDS = {
    "python": sys.executable,
    "origin": apps.ORIGIN,
    "demo": apps.DEMO,
    "uvicorn": apps.UVICORN,
    "node": apps.NODE,
    "nodehttp2": apps.NODE_HTTP2,
    "hypercorn": apps.HYPERCORN,
    "brittle": apps.BRITTLE,
    "longlived": apps.LONGLIVED,
    "grpc": apps.GRPC,
    "grpclib": apps.GRPCLIB,
}


def _exchange(
    connection: http.client.HTTPConnection, method: str, target: str, headers: dict[str, str], body: Any
) -> Answer:
    connection.request(method, target, body=body, headers=headers)
    response = connection.getresponse()
    return Answer(response.status, response.headers, response.read())


def _marked(process: psutil.Process, mark: str) -> bool:
    try:
        return process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, OSError):
        return False
