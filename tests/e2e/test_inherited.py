"""What lbproxy inherits: closed descriptors, ignored and blocked signals, a terminal that goes away."""

import os
import pty
import signal
import sys
from pathlib import Path

import psutil
import pytest
from support.serve import serving
from support.web import web
from test_descriptors import CLOSED

BLOCK = "import os, signal, sys; signal.pthread_sigmask(0, (1, 2, 10, 12, 15)); os.execvp(sys.argv[1], sys.argv[1:])"


def shell(text: str) -> list[str]:
    """A prefix: what `sh` does before it becomes lbproxy."""
    return ["sh", "-c", f'{text} exec "$@"', "sh"]


def masks(pid: int) -> dict[str, int]:
    """SigBlk, SigIgn and others, as bits."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {line[:6]: int(line.split()[1], 16) for line in lines if line.startswith("Sig") and line[3] in "BIC"}


def bit(number: int) -> int:
    return 1 << (number - 1)


# Without the two that glibc keeps for itself (32, 33): programs cannot change them, and they may come ignored.
CHANGEABLE = sum(map(bit, signal.valid_signals()))


@pytest.mark.parametrize("closed", CLOSED[1:])
def test_a_closed_standard_stream_harms_nothing(closed: str, tmp_path: Path) -> None:
    prefix = ["sh", "-c", f'exec "$@" {closed}', "sh"]
    with serving(web(proxy='pid_file = "$dir/pid"'), tmp_path, prefix=prefix) as lb:
        assert [lb.get("/").status for _ in range(4)] == [200] * 4
        (pool,) = lb.status()["pools"].values()
        assert pool["requests_total"] == 4
        for process in lb.processes():
            for fd in range(3):
                assert "memfd" not in os.readlink(f"/proc/{process.pid}/fd/{fd}")
        assert lb.cli("reload").returncode == 0


def test_hup_that_was_ignored_at_the_start_stays_ignored(tmp_path: Path) -> None:
    with serving(web(size=1), tmp_path, prefix=["nohup"]) as lb:
        lb.signal(signal.SIGHUP)
        lb.signal(signal.SIGUSR2)
        lb.wait_log('"reload.finished"')
        lb.wait_until(lambda: lb.log().count('"reload.started"') == 1)
        lb.wait_log('"trigger":"USR2"')
        backend = lb.backends()[0]["pid"]
        assert not masks(backend)["SigIgn"] & bit(signal.SIGHUP), "a backend begins with the default"


@pytest.mark.parametrize(
    "prefix",
    [shell("trap '' HUP INT QUIT USR1 USR2 TERM TSTP CHLD;"), [sys.executable, "-c", BLOCK]],
    ids=["ignored", "blocked"],
)
def test_signals_that_were_ignored_or_blocked_are_not_in_backends(prefix: list[str], tmp_path: Path) -> None:
    with serving(web(size=1), tmp_path, prefix=prefix) as lb:
        for process in psutil.Process(lb.backends()[0]["pid"]), psutil.Process(lb.pid):
            assert masks(process.pid)["SigBlk"] == 0
        backend = masks(lb.backends()[0]["pid"])
        assert not backend["SigIgn"] & CHANGEABLE & ~(bit(signal.SIGPIPE) | bit(signal.SIGXFSZ))
        assert lb.cli("reload").returncode == 0, "children are reaped, TERM ends a backend"


def test_a_terminal_that_goes_away_stops_lbproxy_in_order(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    # The leader of a session without a terminal gets the one that it opens.
    adopt = f"import os, sys; os.open({os.ttyname(slave)!r}, os.O_RDWR); os.execvp(sys.argv[1], sys.argv[1:])"
    prefix = [sys.executable, "-c", adopt]
    with serving(web(), tmp_path, prefix=prefix, wait=False) as lb:
        lb.wait_ready()
        os.close(slave)
        os.close(master)
        lb.wait_until(lb.exited)
        lb.wait_log("the terminal is gone")
        assert '"reload.started"' not in lb.log()
        lb.wait_log('"serve.stopped"')
