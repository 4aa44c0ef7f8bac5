"""CPU time and memory of real processes."""

import os
import resource
import subprocess
import sys
from pathlib import Path

from lbproxy.supervise.usage import NOTHING, read_usage

# It burns CPU, and so does its child, which is waited for; then it says so, and lives until its input ends.
BUSY = """
import os, subprocess, sys, time
def burn():
    until = time.process_time() + 0.1
    while time.process_time() < until:
        pass
if len(sys.argv) > 1:
    burn()
else:
    subprocess.run([sys.executable, "-S", sys.argv[0], "child"])
    helper = subprocess.Popen([sys.executable, "-S", "-c", "import sys; sys.stdin.read()"])
    burn()
    print("done", flush=True)
    sys.stdin.read()
    helper.wait()
"""


def test_a_session_is_counted_with_its_children(tmp_path: Path) -> None:
    script = tmp_path / "busy.py"
    script.write_text(BUSY)
    command = [sys.executable, "-S", str(script)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"done\n"
        usage = read_usage({process.pid, 1 << 30})
        pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
        process.stdin.close()
    assert set(usage) == {process.pid}
    assert 0.15 <= usage[process.pid].cpu_s < 10
    assert usage[process.pid].resident_bytes > pages * os.sysconf("SC_PAGE_SIZE"), "the helper counts, too"
    assert read_usage({process.pid}).get(process.pid, NOTHING) == NOTHING


def test_nobody_to_look_up_costs_nothing() -> None:
    assert read_usage(()) == {}


def test_without_a_descriptor_left_there_is_no_usage_and_no_error() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        assert read_usage({os.getpid()}) == {}
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
