import os
import signal
import subprocess
import sys

import pytest
from support.children import PYTHON, is_running

from lbproxy.supervise.session import (
    MARK,
    family_pids,
    marked_pids,
    pids_by_session,
    session_pids,
    signal_name,
    signal_others,
    signal_session,
)

TREE = """
import os, sys, time
if os.fork() == 0:
    os.setpgid(0, 0)  # another group of the same session
    if os.fork() == 0:
        os.setsid()  # a session of its own, still a descendant
        print(os.getpid(), flush=True)
        time.sleep(600)
    time.sleep(600)
time.sleep(600)
"""


@pytest.fixture
def tree():
    with subprocess.Popen([*PYTHON, TREE], stdout=subprocess.PIPE, start_new_session=True) as leader:
        daemon = int(leader.stdout.readline())
        yield leader.pid, daemon
        for pid in {*session_pids([leader.pid]), daemon}:
            os.kill(pid, signal.SIGKILL)


def test_members_are_those_of_the_session_in_whatever_group(tree):
    leader, daemon = tree
    found = session_pids([leader])
    assert leader in found
    assert len(found) == 2
    assert daemon not in found
    assert pids_by_session([leader, daemon, 1 << 30]) == {leader: found, daemon: [daemon]}


def test_the_family_is_the_session_and_its_descendants(tree):
    leader, daemon = tree
    found = family_pids(leader)
    assert len(found) == 3
    assert daemon in found


def test_signals_reach_the_group_and_then_the_others(tree):
    leader, _ = tree
    (other,) = [pid for pid in session_pids([leader]) if pid != leader]
    signal_session(leader, signal.SIGKILL)
    os.waitid(os.P_PID, leader, os.WEXITED | os.WNOWAIT)
    assert is_running(other)
    assert signal_others(leader, signal.SIGKILL) == [other]
    assert leader not in session_pids([leader])  # a zombie does not count


def test_signals_to_nobody_are_nothing():
    done = subprocess.Popen([sys.executable, "-S", "-c", ""], start_new_session=True)
    done.wait()
    signal_session(done.pid, signal.SIGKILL)
    assert signal_others(done.pid, signal.SIGKILL) == []


def test_a_signal_has_a_name():
    assert signal_name(9) == "SIGKILL"
    assert signal_name(40) == "SIG40"


def test_a_mark_is_found_whole_or_by_its_first_part():
    wait = [*PYTHON, "print('up'); import signal; signal.pause()"]
    with subprocess.Popen(wait, stdout=subprocess.PIPE, env={"A": "1", MARK: "c0ffee.12"}) as one:
        assert one.stdout.readline() == b"up\n"
        try:
            assert marked_pids("c0ffee.12") == marked_pids("c0ffee.") == [one.pid]
            assert marked_pids("c0ffee.1") == marked_pids("ffee.12") == marked_pids("") == []
        finally:
            one.kill()
