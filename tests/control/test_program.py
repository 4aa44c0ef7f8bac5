"""How a process executes itself anew: its words, its environment, the descriptors that stay open."""

import os
import subprocess
import sys

from lbproxy.control.program import VARIABLE, Program

AGAIN = """
import os, sys
from lbproxy.control.program import Program
program = Program.take(os.environ)
assert "LBPROXY_TAKE_OVER" not in os.environ
if program.document_fd is None:
    kept, closed, document = (os.memfd_create(name) for name in "abc")
    os.write(document, f"{os.getpid()} {kept} {closed}".encode())
    os.environ["SECRET"] = "taken out"
    program.execute(document, [kept])
pid, kept, closed = os.pread(program.document_fd, 100, 0).decode().split()
assert int(pid) == os.getpid()
os.fstat(int(kept))
try:
    os.fstat(int(closed))
except OSError:
    print("same pid", sys.argv[1:], os.environ.get("SECRET"), program.is_trial)
"""


def test_it_goes_on_with_the_same_pid_words_environment_and_descriptors():
    done = subprocess.run([sys.executable, "-c", AGAIN, "a b", "c"], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("same pid ['a b', 'c'] None False\n", "")


def test_a_program_that_cannot_be_executed_changes_nothing():
    fd = os.memfd_create("test")
    program = Program(("/does/not/exist",), {})
    try:
        program.execute(fd, [])
    except FileNotFoundError:
        assert not os.get_inheritable(fd)
    os.close(fd)


def test_a_trial_is_told_apart():
    environ = Program((), {"A": "b"}).trial_environment(7)
    assert environ["A"] == "b"
    program = Program.take(environ)
    assert (program.document_fd, program.is_trial) == (7, True)
    assert VARIABLE not in program.environ
