"""A real PostgreSQL on loopback for a test, as a user who is not root: it refuses to run as root."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator

from support.ports import free_port

WHERE = ("127.0.0.1", "127.0.0.2")  # two addresses of one server, so that a reload has something to change
USER = "postgres"


@contextlib.contextmanager
def postgres() -> Iterator[int]:
    """A running server; the value is its port. The user `postgres` needs no password."""
    home = tempfile.mkdtemp(prefix="lb-pg-")
    account: dict[str, str | int] = {}
    if os.geteuid() == 0:
        entry = pwd.getpwnam(USER)
        os.chown(home, entry.pw_uid, entry.pw_gid)
        account = {"user": entry.pw_uid, "group": entry.pw_gid}
    port, data = free_port(), f"{home}/data"
    initdb = ["initdb", "-D", data, "-U", USER, "-A", "trust", "--no-sync", "--no-instructions", "--locale=C"]
    serve = ["postgres", "-D", data, "-p", str(port), "-h", ",".join(WHERE), "-k", "", "-c", "fsync=off"]
    try:
        subprocess.run(initdb, cwd=home, check=True, capture_output=True, extra_groups=[], **account)
        with subprocess.Popen(
            serve, cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, extra_groups=[], **account
        ) as server:
            try:
                _wait_ready(server)
                yield port
            finally:
                server.send_signal(signal.SIGINT)  # fast shutdown
                server.communicate()
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _wait_ready(server: "subprocess.Popen[str]") -> None:
    assert server.stderr is not None
    said = ""
    for line in server.stderr:
        said += line
        if "ready to accept connections" in line:
            return
    raise AssertionError(f"PostgreSQL did not start: {said}")
