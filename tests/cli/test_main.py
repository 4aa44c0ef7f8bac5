import copy
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fake_control import FakeControl, Handler, fake_control, lines

from lbproxy.cli.main import COMMANDS, run

HEAVY = ("trio", "pydantic", "h11", "rich")
STATUS = {"name": "x", "pid": 1, "uptime_s": 1.0, "config": {}, "workers": [], "listeners": [], "pools": {}}
DONE = {
    "event": "reload.done",
    "pool": "web",
    "reload": "r",
    "result": "ok",
    "generation": 2,
    "from_generation": 1,
    "duration_s": 1.0,
    "requests": 1,
    "failed": 0,
    "cut": 0,
    "websockets_closed": 0,
}
FINISHED = {"event": "reload.finished", "reload": "r", "exit_code": 0, "text": ""}


@pytest.fixture
def control(tmp_path: Path) -> Iterator[FakeControl]:
    with fake_control(tmp_path / "lb.sock") as control:
        control.answers["GET /v1/status"] = copy.deepcopy(STATUS)
        control.answers["POST /v1/reload"] = lines(DONE, FINISHED)
        control.answers["GET /v1/logs"] = lines({"time": "t", "backend": "web.1", "generation": 1, "line": "x"})
        control.answers["POST /v1/stop"] = {"pid": 2**22 + 1}
        yield control


def lbproxy(*args: str) -> list[str]:
    return [sys.executable, "-m", "lbproxy.cli.main", *args]


@pytest.mark.parametrize("command", ["status", "reload", "stop", "logs", "version"])
def test_client_commands_import_nothing_heavy(control: FakeControl, command: str) -> None:
    script = (
        "import sys; from lbproxy.cli.main import run; code = run(sys.argv[1:]);"
        f"print('HEAVY', [name for name in {HEAVY} if name in sys.modules], code)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script, command, "--control", control.path], capture_output=True, text=True, timeout=20
    )
    assert answer.stdout.splitlines()[-1] == "HEAVY [] 0", answer.stderr


def test_status_answers_within_150_ms(control: FakeControl) -> None:
    # Its own CPU time: what the clock on the wall says depends on what else the machine does.
    best = float("inf")
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(lbproxy("status", "--control", control.path), check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        best = min(best, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert best < 0.15  # measured: 0.06


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_can_be_asked_for_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([name, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"Usage: lbproxy {name}")


@pytest.mark.parametrize(
    "args", [[], ["bogus"], ["status", "--bogus"], ["status", "a", "b"], ["--color", "pink", "status"]]
)
def test_a_usage_error_is_2(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(args) == 2
    assert "Usage: lbproxy" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("relaod", "no command is called 'relaod' (did you mean 'reload'?)"),
        ("zzz", "no command is called 'zzz'\n"),
        ("statsu", "(did you mean 'status'?)"),
    ],
)
def test_a_misspelt_command_has_a_suggestion(name: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([name]) == 2
    assert message in capsys.readouterr().err


def test_options_stand_before_and_after_the_command(control: FakeControl) -> None:
    assert run(["-q", "--control", control.path, "status"]) == 0
    assert run(["status", "-q", "--control", control.path]) == 0
    assert run(["--control", "/nowhere", "-v", "status", "--control", control.path, "-qq"]) == 0


def test_the_environment_is_asked_last(control: FakeControl, capsys: pytest.CaptureFixture[str]) -> None:
    environ = {"LBPROXY_CONTROL": control.path}
    assert run(["status", "-q"], environ) == 0
    assert run(["status", "-q", "--control", "/nowhere"], environ) == 3
    assert run(["--control", "/nowhere", "status", "-q"], environ) == 3
    capsys.readouterr()


def test_the_control_socket_is_found_through_the_configuration(control: FakeControl, tmp_path: Path) -> None:
    (tmp_path / "lb.toml").write_text('[proxy]\ncontrol = "lb.sock"\nwokers = "many"\n')
    assert run(["status", "-q"], {"LBPROXY_CONFIG": str(tmp_path / "lb.toml")}) == 0
    assert run(["status", "-q", "-c", str(tmp_path / "lb.toml")], {}) == 0


def test_a_reader_that_goes_away_is_no_traceback(control: FakeControl) -> None:
    def many(handler: Handler) -> None:
        handler.begin()
        for number in range(20_000):
            handler.line({"line": f"line {number}"})
        handler.end()

    control.answers["GET /v1/logs"] = many
    with subprocess.Popen(
        lbproxy("logs", "--control", control.path), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"line 0\n"
        process.stdout.close()
        assert process.wait(20) == 141
        assert process.stderr.read() == b""


def test_a_closed_standard_output_is_no_traceback(control: FakeControl) -> None:
    command = f"exec {sys.executable} -m lbproxy.cli.main status --control {control.path} >&-"
    answer = subprocess.run(["sh", "-c", command], capture_output=True, timeout=20)
    assert (answer.returncode, answer.stderr) == (0, b"")


def test_a_full_disk_is_said(control: FakeControl) -> None:
    with open("/dev/full", "w") as full:
        answer = subprocess.run(
            lbproxy("status", "--control", control.path), stdout=full, stderr=subprocess.PIPE, timeout=20
        )
    assert (answer.returncode, answer.stderr) == (1, b"lbproxy: No space left on device\n")


@pytest.mark.parametrize("command", ["logs", "reload"])
def test_ctrl_c_is_no_traceback(control: FakeControl, command: str) -> None:
    def never_ends(handler: Handler) -> None:
        handler.begin()
        handler.line({"event": "notice", "time": "noon", "text": "begun", "line": "begun"})
        handler.rfile.read()

    control.answers["GET /v1/logs"] = control.answers["POST /v1/reload"] = never_ends
    with subprocess.Popen(
        lbproxy(command, *(["-f"] if command == "logs" else []), "--control", control.path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert b"begun" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        said = process.stderr.read().decode()
    assert "Traceback" not in said
    assert said == (
        "" if command == "logs" else "lbproxy: the reload goes on without this command: see lbproxy status\n"
    )
