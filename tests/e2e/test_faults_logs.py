"""Logs that cannot be written: a full disk, a reader that stalls. Lines are lost and counted; no client notices."""

import json
import os
import re
import signal
import threading
from pathlib import Path
from time import monotonic

import pytest
from support.load import load
from support.serve import Serving, serving
from support.web import web

ACCESS_FULL = '[log]\naccess_path = "/dev/full"'
# More than a pipe holds, in the first second of each backend's life.
CHATTY = "sh -c 'seq -f line-%g-which-nobody-reads-but-which-has-to-go-somewhere 3000; exec $brittle'"


def asks_and_reloads(lb: Serving) -> None:
    with load(lb.port) as clients:
        clients.wait_more(50)
        assert lb.cli("reload").returncode == 0
        clients.wait_more(50)
        assert lb.cli("status", "-q").returncode == 0
    assert clients.lost == []


def test_a_full_disk_below_the_log_costs_lines_and_nothing_else(tmp_path: Path) -> None:
    with serving(web(size=1), tmp_path, output="/dev/full") as lb:
        asks_and_reloads(lb)


def test_a_full_disk_below_the_access_log_is_said_and_costs_nothing_else(tmp_path: Path) -> None:
    with serving(web(size=1, workers=2, more=ACCESS_FULL), tmp_path) as lb:
        asks_and_reloads(lb)
        lb.wait_log('"log.dropped"', 5)
        (said, *_) = [json.loads(line) for line in lb.log().splitlines() if '"log.dropped"' in line]
        assert said["log"] == "access"
        assert said["lines"] > 0


def tiny_disk(directory: Path) -> list[str]:
    """A command that runs the next one where `directory` is a file system of 64 KiB."""
    mount = f"mount -t tmpfs -o size=64k none {directory}"
    command = ["unshare", "--mount", "sh", "-c", f'{mount} && exec "$@"', "sh"]
    try:
        code = os.spawnvp(os.P_WAIT, command[0], [*command, "true"])
    except OSError:
        code = 1
    if code != 0:
        pytest.skip("no mount namespaces here")
    return command


def test_a_disk_that_fills_up_and_is_emptied_again_gets_whole_lines(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    log = f'[log]\naccess_path = "{disk}/access"\naccess = "json"'
    with serving(web(size=1, more=log), tmp_path, prefix=tiny_disk(disk)) as lb:
        inside = Path(f"/proc/{lb.status()['pid']}/root{disk}/access")
        with load(lb.port, clients=8) as clients:
            lb.wait_log('"log.dropped"')
            assert inside.stat().st_size == 64 * 1024
            os.truncate(inside, 0)
            clients.wait_more(50)
            lb.wait_until(lambda: inside.read_bytes().endswith(b"}\n"), 5)
        assert clients.lost == []
        *lines, end = inside.read_bytes().split(b"\n")
        whole = [line for line in lines if line]
        assert end == b""
        assert len(whole) >= 20
        assert all(json.loads(line)["status"] == 200 for line in whole)


class StalledPipe:
    """A pipe that nobody reads until `flow`."""

    def __init__(self, directory: Path) -> None:
        self.path = str(directory / "pipe")
        os.mkfifo(self.path)
        self._end = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        self.said = b""

    def flow(self) -> None:
        os.set_blocking(self._end, True)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while data := os.read(self._end, 65536):
            self.said += data
        os.close(self._end)


@pytest.mark.long
def test_a_pipe_that_nobody_reads_stops_neither_traffic_nor_reloads_nor_the_end(tmp_path: Path) -> None:
    pipe = StalledPipe(tmp_path)
    with serving(web(command=CHATTY, workers=2), tmp_path, output=pipe.path) as lb:
        asks_and_reloads(lb)
        with load(lb.port, clients=2) as clients:
            clients.wait_more(300)
        assert clients.lost == []
        begun = monotonic()
        lb.signal(signal.SIGTERM)
        assert lb.stop(8) == 0
        assert monotonic() - begun < 6
        lb.wait_nothing_left()


@pytest.mark.long
def test_when_a_stalled_pipe_flows_again_it_says_what_was_lost_and_lines_are_whole(tmp_path: Path) -> None:
    pipe = StalledPipe(tmp_path)
    more = '[log]\naccess = "json"\nbackend_lines = 100000'
    with serving(web(size=1, more=more), tmp_path, output=pipe.path) as lb:
        worker = lb.status()["workers"][0]["pid"]
        for _ in range(3):  # 3 KB, 400 times: more than a pipe and a queue of 1 MiB hold
            assert lb.get(f"/say?text={'x' * 3000}&times=400").status == 200
        for _ in range(30):
            assert lb.get("/whoami").status == 200
        lb.wait_until(lambda: _hangs_in_a_write(lb.pid) and _hangs_in_a_write(worker))
        pipe.flow()
        lb.wait_until(lambda: b'"log.dropped"' in pipe.said, 8)
        assert lb.get("/whoami").status == 200
        broken = [line for line in pipe.said.split(b"\n")[:-1] if not _is_json(line)]
        assert broken == []
        assert re.search(rb'"log.dropped".*"lines":[1-9]', pipe.said)


def _hangs_in_a_write(pid: int) -> bool:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return any("pipe_write" in (task / "wchan").read_text() for task in tasks)


def _is_json(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
