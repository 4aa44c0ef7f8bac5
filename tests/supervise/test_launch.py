import json
import os
import signal
import socket
import subprocess
import sys

import pytest
from support.children import PYTHON

from lbproxy.config.user import user_of
from lbproxy.supervise import launch
from lbproxy.supervise.command import credentials

TELL = """
import json, os, resource, socket
server = socket.socket(fileno=3)
print(json.dumps({
    "port": server.getsockname()[1], "ours": os.environ.get("LISTEN_PID") == str(os.getpid()),
    "fds": sorted(map(int, os.listdir("/proc/self/fd")))[:4], "uid": os.getuid(), "groups": os.getgroups(),
    "pipe": [line for line in open("/proc/self/status") if line.startswith("SigIgn")][0].split()[1],
    "argv0": open("/proc/self/cmdline").read().split(chr(0))[0],
}))
"""


def launched(who="-", words=None, **env):
    program = sys.executable
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        fds = [server.fileno(), os.dup(server.fileno())]
        command = launch.command(sys.executable, fds[1], who, words or (program, "name", *PYTHON[1:], TELL))
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, pass_fds=[fds[1]], env=os.environ | env
        )
        os.close(fds[1])
        return done, server.getsockname()[1]


def test_the_program_finds_the_socket_at_3_and_itself_in_listen_pid():
    done, port = launched(LISTEN_FDS="1")
    told = json.loads(done.stdout)
    assert told["port"] == port
    assert told["ours"]
    assert told["fds"] == [0, 1, 2, 3]
    assert told["argv0"] == "name"


def test_without_listen_fds_there_is_no_listen_pid():
    assert not json.loads(launched()[0].stdout)["ours"]


def test_the_interpreters_ignored_signals_are_not_inherited():
    done, _ = launched(words=("/bin/sh", "sh", "-c", "grep SigIgn /proc/self/status"))
    assert not int(done.stdout.split()[1], 16) & (1 << (signal.SIGPIPE - 1))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_privileges_are_dropped():
    user = user_of("daemon")
    told = json.loads(launched(credentials(user), ("/usr/bin/env", "env", *_system_python(), "-c", TELL))[0].stdout)
    assert told["uid"] == user.uid
    assert set(told["groups"]) == set(user.groups)


def _system_python():
    return [next(path for path in ("/usr/bin/python3", sys.executable) if os.path.exists(path))]


def test_what_cannot_be_executed_is_one_line():
    done, _ = launched(words=("/nowhere/app", "app"))
    assert done.returncode == 126
    assert done.stderr == "lbproxy: cannot execute /nowhere/app: No such file or directory\n"
