import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
from support.children import PYTHON, ignored_signals, is_running

from lbproxy.supervise.session import MARK, session_pids

GUARD = (sys.executable, "-P", "-m", "lbproxy.supervise.guard")
DEAF = "import signal; signal.signal(15, signal.SIG_IGN); print('up'); signal.pause()"
POLITE = "import os, signal; print('up'); signal.pause()"


@contextmanager
def guard():
    with subprocess.Popen(GUARD, stdin=subprocess.PIPE, start_new_session=True) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def child(*command, **environment):
    environment = {**os.environ, **environment}
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True, env=environment) as process:
        assert process.stdout.readline() == b"up\n"
        try:
            yield process
        finally:
            for pid in session_pids([process.pid]):
                os.kill(pid, signal.SIGKILL)


def test_at_the_end_of_file_it_ends_all_groups_and_then_itself():
    with guard() as process, child(*PYTHON, POLITE) as one, child(*PYTHON, DEAF) as two:
        process.stdin.write(b"+%d\n+%d\n" % (one.pid, two.pid))
        process.stdin.close()
        assert one.wait(timeout=10) == -signal.SIGTERM
        assert two.wait(timeout=10) == -signal.SIGKILL
        assert process.wait(timeout=10) == 0


def test_what_was_taken_back_is_spared():
    with guard() as process, child(*PYTHON, POLITE) as one:
        process.stdin.write(b"+%d\n" % one.pid)
        process.stdin.write(b"-%d\n" % one.pid)
        process.stdin.close()
        assert process.wait(timeout=10) == 0
        assert is_running(one.pid)


def test_a_stopped_process_is_ended_too():
    with guard() as process, child(*PYTHON, POLITE) as one:
        os.kill(one.pid, signal.SIGSTOP)
        process.stdin.write(b"+%d\n" % one.pid)
        process.stdin.close()
        assert one.wait(timeout=10) == -signal.SIGTERM


def test_nothing_of_a_shell_with_a_background_app_is_left():
    app = f'{sys.executable} -I -S -u -c "{DEAF}"'
    with guard() as process, child("sh", "-c", f"{app} & wait") as shell:
        assert len(session_pids([shell.pid])) == 2
        process.stdin.write(b"+%d\n" % shell.pid)
        process.stdin.close()
        assert process.wait(timeout=10) == 0
        shell.wait(timeout=10)
        assert session_pids([shell.pid]) == []


def test_a_process_with_the_mark_is_ended_although_the_guard_was_not_told_of_it():
    ours, alien = (child(*PYTHON, POLITE, **{MARK: mark}) for mark in ("c0ffee.7", "c0ffee1.7"))
    with guard() as process, ours as one, alien as other:
        process.stdin.write(b"=c0ffee\n")
        process.stdin.close()
        assert one.wait(timeout=10) == -signal.SIGTERM
        assert process.wait(timeout=10) == 0
        assert is_running(other.pid)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_do_not_end_it(number):
    with guard() as process, child(*PYTHON, POLITE) as one:
        process.stdin.write(b"+%d\n" % one.pid)
        while not ignored_signals(process.pid) & (1 << (number - 1)):
            pass  # it is just starting
        process.send_signal(number)
        assert is_running(process.pid)
        process.stdin.close()
        assert one.wait(timeout=10) == -signal.SIGTERM
        assert process.wait(timeout=10) == 0


def test_it_is_light():
    code = "import sys, lbproxy.supervise.guard; sys.exit('trio' in sys.modules or 'pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
