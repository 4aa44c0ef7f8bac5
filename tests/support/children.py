"""Real children for the tests of supervise: one-file programs, and the resources to start them with."""

import os
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from lbproxy.model import BackendSpec, Generation
from lbproxy.settings import HealthSettings, PoolSettings, RestartSettings
from lbproxy.supervise.process_runner import ProcessRunner
from lbproxy.supervise.resources import Resources

PYTHON = (sys.executable, "-I", "-S", "-u", "-c")

# Listens where its environment says and answers every request with the content of the file in argv[1], else "200 ok".
SERVER = """
import os, socket, sys
if "LISTEN_FDS" in os.environ:
    assert os.environ["LISTEN_PID"] == str(os.getpid())
    server = socket.socket(fileno=3)
elif "LBPROXY_SOCKET" in os.environ:
    server = socket.socket(socket.AF_UNIX)
    server.bind(os.environ["LBPROXY_SOCKET"])
else:
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((os.environ["HOST"], int(os.environ["PORT"])))
server.listen(100)
print("listening")
while True:
    connection, _ = server.accept()
    with connection:
        connection.recv(65536)
        status, body = 200, "ok"
        if len(sys.argv) > 1:
            try:
                status, _, body = open(sys.argv[1]).read().partition(" ")
            except OSError:
                pass
        head = f"HTTP/1.1 {status} x\\r\\nContent-Length: {len(body)}\\r\\nConnection: close\\r\\n\\r\\n"
        connection.sendall((head + body).encode())
"""

QUICK = HealthSettings(path="/", interval_s=0.05, start_timeout_s=10.0, timeout_s=2.0)
QUICK_RESTART = RestartSettings(backoff_first_s=0.05, backoff_max_s=0.1, stop_timeout_s=5.0)


def pool(*command: str, **changes) -> PoolSettings:
    settings = {"health": QUICK, "restart": QUICK_RESTART, "directory": "/"} | changes
    return PoolSettings("web", command=command, **settings)


def server_pool(*arguments: str, **changes) -> PoolSettings:
    return pool(*PYTHON, SERVER, *arguments, **changes)


def generation(settings: PoolSettings, number: int = 7) -> Generation:
    return Generation(number, settings, settings.directory, settings.env)


class Stage:
    """Resources, the events so far, and a nursery in which backends run."""

    def __init__(self, nursery: trio.Nursery, ports: tuple[int, int]) -> None:
        self.events: list = []
        self.resources = Resources.make(self.events.append, ports, 100)
        self.nursery = nursery

    def backend(self, settings: PoolSettings, **options) -> ProcessRunner:
        """Make a backend and run it."""
        backend = ProcessRunner(BackendSpec(3, generation(settings)), self.resources, **options)
        self.nursery.start_soon(backend.run)
        return backend

    def named(self, kind: type) -> list:
        return [event for event in self.events if isinstance(event, kind)]


@asynccontextmanager
async def stage(ports: tuple[int, int] = (20000, 29999)):
    async with trio.open_nursery() as nursery:
        here = Stage(nursery, ports)
        try:
            yield here
        finally:
            nursery.cancel_scope.cancel()
    here.resources.close()


async def wait_state(backend: ProcessRunner, state, *, after: int = 0) -> None:
    """Wait until a backend is in `state`, with at least `after` restarts."""
    while backend.backend.state is not state or backend.backend.restarts < after:
        await backend.wait_change()


def is_running(pid: int) -> bool:
    """Whether the process is alive and not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def is_known(pid: int) -> bool:
    """Whether the process exists, alive or as a zombie."""
    return Path(f"/proc/{pid}").exists()


def open_descriptors() -> int:
    """The number of descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))


def ignored_signals(pid: int) -> int:
    """A bit for each signal that `pid` ignores; bit 0 is signal 1."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1], 16) for line in lines if line.startswith("SigIgn"))
