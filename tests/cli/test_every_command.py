"""Every command that talks to a running lbproxy, when that is not there, hangs, or ends in the middle."""

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.serve import LBPROXY, Serving, serving
from support.terminal import terminal
from support.web import web

from lbproxy.cli import client
from lbproxy.cli.main import COMMANDS, run

COMMANDS_TO_SERVER = [
    ["status"],
    ["status", "web", "--json"],
    ["status", "-w"],
    ["status", "-q"],
    ["reload"],
    ["reload", "web", "--json"],
    ["reload", "--no-wait"],
    ["rollback", "web"],
    ["abort"],
    ["resume"],
    ["scale", "web=3"],
    ["drain", "web.1"],
    ["drain", "web.1", "--why"],
    ["undrain", "web.1"],
    ["restart", "web.1"],
    ["pause", "web"],
    ["unpause", "web"],
    ["connections"],
    ["connections", "--json"],
    ["close", "1"],
    ["logs"],
    ["logs", "-f"],
    ["logs", "access", "-f"],
    ["why", "some-id"],
    ["history"],
    ["plan"],
    ["plan", "web", "--json"],
    ["history", "web", "--json"],
    ["events"],
    ["events", "-f"],
    ["events", "-f", "--json"],
    ["upgrade"],
    ["upgrade", "--json"],
    ["upgrade", "--no-wait"],
    ["stop"],
]
NO_SERVER = {"serve", "check", "explain", "init", "schema", "completion", "version"}
ON_TERMINAL = {"top"}


def test_no_command_is_forgotten() -> None:
    built = {name for name, module in COMMANDS.items() if module is not None}
    assert built - NO_SERVER - ON_TERMINAL <= {arguments[0] for arguments in COMMANDS_TO_SERVER}


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    told = capsys.readouterr().err
    assert told.startswith("lbproxy: ")
    assert told.count("\n") == 1, told
    return told


@contextmanager
def server(path: Path, answer: Callable[[socket.socket], None]) -> Iterator[None]:
    """Does `answer` with each connection, then closes it."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(50)

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    answer(connection)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


@pytest.mark.parametrize("arguments", COMMANDS_TO_SERVER, ids=" ".join)
def test_a_server_that_is_gone_is_3(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    control = tmp_path / "lb.sock"
    assert run([*arguments, "--control", str(control)]) == 3
    assert "not running" in one_line(capsys)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(control))  # nobody listens
        assert run([*arguments, "--control", str(control)]) == 3
        assert "not running" in one_line(capsys)


@pytest.mark.parametrize("arguments", COMMANDS_TO_SERVER, ids=" ".join)
def test_a_server_that_hangs_is_1(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "ANSWER_TIMEOUT_S", 0.05)
    control = tmp_path / "lb.sock"
    with socket.socket(socket.AF_UNIX) as hanging:
        hanging.bind(str(control))
        hanging.listen(5)  # connections come in, and nothing is read
        assert run([*arguments, "--control", str(control)]) == 1
    assert one_line(capsys) == f"lbproxy: no answer within 0.05s from {control}\n"


HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
BREAKS = {
    "before the answer": b"",
    "in its head": b"HTTP/1.1 200",
    "in its body": HEAD + b'12\r\n{"event":',
    "behind a whole chunk": HEAD + b'5\r\n{"a":\r\n',
    "with nonsense": HEAD + b"5\r\n[1,2]\r\n0\r\n\r\n",
    "with an error": b"HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\nOops",
}


@pytest.mark.parametrize("sent", BREAKS.values(), ids=BREAKS)
@pytest.mark.parametrize("arguments", COMMANDS_TO_SERVER, ids=" ".join)
def test_a_server_that_ends_in_the_middle_is_1(
    arguments: list[str], sent: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    control = tmp_path / "lb.sock"
    with server(control, lambda connection: connection.sendall(sent)):
        assert run([*arguments, "--control", str(control)]) == 1
    one_line(capsys)


def test_top_ends_with_one_line_and_leaves_the_terminal_as_it_was(tmp_path: Path) -> None:
    control = tmp_path / "lb.sock"
    with terminal([*LBPROXY, "top", "--control", str(control)]) as screen:
        assert screen.wait_end() == 3
        assert screen.shown == f"lbproxy: not running: nobody answers at {control}\r\n"
        assert screen.is_as_before()


def test_what_waits_notices_a_server_that_is_killed_or_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "ANSWER_TIMEOUT_S", 0.5)
    with serving(web(size=1, reload='min_ready = "60s"'), tmp_path) as lb:
        with in_the_middle_of_a_reload(lb, signal.SIGSTOP):
            assert run(["reload", "--control", lb.control]) == 1
        assert one_line(capsys) == f"lbproxy: no answer within 0.5s from {lb.control}\n"
        lb.signal(signal.SIGCONT)
        with subprocess.Popen(lb.command("logs", "-f"), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as following:
            assert following.stdout is not None
            following.stdout.readline()
            lb.signal(signal.SIGKILL)
            _, told = following.communicate(timeout=20)
        assert following.returncode == 1
        assert told.startswith(b"lbproxy: the connection broke: ")
        assert told.count(b"\n") == 1
        lb.wait_nothing_left()


@contextmanager
def in_the_middle_of_a_reload(lb: Serving, number: signal.Signals) -> Iterator[None]:
    """Send the signal to control as soon as the new backend is ready."""

    def send() -> None:
        lb.wait_until(lambda: any(one["generation"] == 2 and one["state"] == "ready" for one in lb.backends()))
        os.kill(lb.pid, number)

    thread = threading.Thread(target=send)
    thread.start()
    yield
    thread.join()
