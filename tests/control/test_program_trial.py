"""A program on trial: what it says is read, and nothing of it is left."""

import os
import sys

import pytest
import trio
from support.trio_test import trio_test

from lbproxy.control.program_trial import Trial, TrialFailed, run_trial
from lbproxy.supervise.resources import Resources
from lbproxy.supervise.session import is_zombie


def trial(code: str, **changes) -> Trial:
    values = {"words": (sys.executable, "-c", code), "environ": dict(os.environ), "fds": (), "limit_s": 20.0}
    return Trial(**{**values, **changes})


def resources() -> Resources:
    return Resources.make(lambda event: None, (20000, 20001), 100)


@trio_test
async def test_the_last_line_of_json_is_its_proof():
    fd = os.memfd_create("test")
    code = f"import os; os.fstat({fd}); print('warning: old'); print('{{\"version\": \"2\"}}'); print('bye')"
    assert await run_trial(trial(code, fds=(fd,)), resources()) == {"version": "2"}
    os.close(fd)


@pytest.mark.parametrize(
    ("code", "why", "output"),
    [
        ("print('a'); raise SystemExit('b')", "exit code 1", ("a", "b")),
        ("import os; os.kill(os.getpid(), 9)", "signal SIGKILL", ()),
        ("print('serving')", "knows no trial", ("serving",)),
    ],
)
def test_a_failure_is_told_with_its_last_output(code, why, output):
    async def main():
        with pytest.raises(TrialFailed, match=why) as failed:
            await run_trial(trial(code), resources())
        assert sorted(failed.value.output) == sorted(output)

    trio.run(main)


@trio_test
async def test_a_program_that_hangs_is_ended_with_its_children():
    code = "import subprocess, time; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True); time.sleep(60)"
    with pytest.raises(TrialFailed, match="not over within 1s") as failed:
        await run_trial(trial(code, limit_s=1.0), resources())
    (pid,) = failed.value.output
    assert not os.path.exists(f"/proc/{pid}") or is_zombie(int(pid))


@trio_test
async def test_a_program_that_is_not_there_is_a_failure():
    with pytest.raises(TrialFailed, match="cannot execute /does/not/exist"):
        await run_trial(trial("", words=("/does/not/exist",)), resources())
