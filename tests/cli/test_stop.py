import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fake_control import FakeControl, Handler, fake_control

from lbproxy.cli.main import run
from lbproxy.cli.stop import wait_gone


@pytest.fixture
def control(tmp_path: Path) -> Iterator[FakeControl]:
    with fake_control(tmp_path / "lb.sock") as control:
        yield control


def test_stop_returns_when_the_process_is_gone(control: FakeControl, capsys: pytest.CaptureFixture[str]) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:

        def answer(handler: Handler) -> None:
            handler.send(200, {"pid": process.pid})
            assert process.stdin is not None
            threading.Timer(0.05, process.stdin.close).start()

        control.answers["POST /v1/stop"] = answer
        assert run(["stop", "--control", control.path]) == 0
        assert process.poll() is not None
    assert control.asked == [("POST", "/v1/stop", {"now": False})]
    assert capsys.readouterr().out == f"stopped pid {process.pid}\n"


def test_now_is_passed_on(control: FakeControl) -> None:
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    control.answers["POST /v1/stop"] = {"pid": int(gone.stdout)}
    assert run(["stop", "--now", "-q", "--control", control.path]) == 0
    assert control.asked == [("POST", "/v1/stop", {"now": True})]


def test_nobody_there_is_not_running(tmp_path: Path) -> None:
    assert run(["stop", "--control", str(tmp_path / "nobody.sock")]) == 3


def test_a_process_that_is_gone_already_is_not_waited_for() -> None:
    wait_gone(2**22 + 1)  # above any pid
