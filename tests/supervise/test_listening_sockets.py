import os
import socket
import subprocess

import pytest
from support.children import PYTHON

from lbproxy.supervise.listening_sockets import PortProblem, listening_inodes, port_problem
from lbproxy.supervise.session import MARK

LISTEN = """
import os, socket, sys, time
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
server.bind(("127.0.0.1", int(sys.argv[1])))
server.listen()
if "fork" in sys.argv and os.fork() == 0:
    os.setsid()
    print(server.getsockname()[1], flush=True)
    time.sleep(600)
if "fork" in sys.argv:
    server.close()
else:
    print(server.getsockname()[1], flush=True)
sys.stdout.close()
sys.stdin.read()
if "fork" in sys.argv:
    import subprocess
    with open(f"/proc/{os.getpid()}/task/{os.getpid()}/children") as file:
        os.kill(int(file.read()), 9)
"""


@pytest.fixture
def backend(request):
    words = [*PYTHON, LISTEN, "0", *getattr(request, "param", ())]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(words, start_new_session=True, **pipes) as child:
        yield child.pid, int(child.stdout.readline())
        child.stdin.close()


def test_a_socket_of_the_child_is_ours(backend):
    session, port = backend
    assert port_problem(port, session) is None


@pytest.mark.parametrize("backend", [("fork",)], indirect=True)
def test_a_socket_of_a_descendant_in_another_session_is_ours(backend):
    session, port = backend
    assert port_problem(port, session) is None


def test_a_socket_of_a_daemon_that_carries_the_mark_is_ours():
    words, environment = [*PYTHON, LISTEN, "0"], {**os.environ, MARK: "c0ffee.3"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(words, start_new_session=True, env=environment, **pipes) as daemon:
        port = int(daemon.stdout.readline())
        assert port_problem(port, 4_000_000_000, "c0ffee.3") is None
        assert port_problem(port, 4_000_000_000, "c0ffee.4") is not None
        daemon.stdin.close()


def test_a_socket_of_anybody_else_is_a_strangers(backend):
    session, _ = backend
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        port = stranger.getsockname()[1]
        trouble = port_problem(port, session)
    assert trouble.stranger
    assert trouble.text.startswith(f"port {port} is held by pid {os.getpid()} (")


def test_a_port_shared_with_a_stranger_is_a_strangers(backend):
    session, port = backend
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        stranger.bind(("127.0.0.1", port))
        stranger.listen()
        assert port_problem(port, session).stranger


def test_a_port_on_which_nobody_listens_is_nobodys(backend):
    session, _ = backend
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        trouble = port_problem(bound.getsockname()[1], session)
    assert not trouble.stranger


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::", "::ffff:127.0.0.1"])
def test_listeners_are_found_on_every_address_that_a_connect_to_localhost_reaches(host):
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as server:
        if ":" in host:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.bind((host, 0))
        server.listen()
        inode = os.fstat(server.fileno()).st_ino
        assert listening_inodes(server.getsockname()[1]) == {str(inode)}


def test_a_listener_on_another_address_is_no_concern_of_ours():
    with socket.socket() as server:
        server.bind(("127.0.0.2", 0))
        server.listen()
        assert listening_inodes(server.getsockname()[1]) == set()


def test_a_backend_that_exits_between_the_two_looks_is_not_called_another_program(monkeypatch):
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]

    def exits(session):
        server.close()
        return []

    monkeypatch.setattr("lbproxy.supervise.listening_sockets.family_pids", exits)
    problem = port_problem(port, 4_000_000_000)
    assert problem == PortProblem(f"no program listens on port {port} any more", stranger=False)
