"""What backends write: whatever it is, it is kept, shown, and disturbs nobody."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from urllib.parse import quote

import pytest
from support.load import load
from support.serve import Serving, serving
from support.web import web


def say(lb: Serving, text: str, times: int = 1) -> None:
    assert lb.get(f"/say?text={quote(text)}&times={times}").body == b"said"


def lines_of(lb: Serving, *arguments: str) -> list[str]:
    done = lb.cli("logs", *arguments)
    assert done.returncode == 0, done.stderr
    return [line.partition(" | ")[2] for line in done.stdout.splitlines()]


def test_the_last_lines_are_shown_with_the_slot_and_generation(tmp_path: Path) -> None:
    with serving(web(), tmp_path) as lb:
        for _ in range(4):
            say(lb, "to both of you")
        text = lb.cli("logs").stdout
        assert " web.1@1 | to both of you" in text
        assert " web.2@1 | to both of you" in text
        assert "web.2@1" not in lb.cli("logs", "web.1").stdout
        say(lb, "line %", 50)
        assert lines_of(lb, "web", "-n", "3")[-3:] == ["line 47", "line 48", "line 49"]
        assert lines_of(lb, "-n", "0") == []
        unknown = lb.cli("logs", "wbe")
        assert unknown.returncode == 2
        assert "no pool or backend 'wbe'" in unknown.stderr


def test_a_generation_can_be_asked_for(tmp_path: Path) -> None:
    with serving(web(size=1), tmp_path) as lb:
        say(lb, "from the first")
        lb.cli("reload")
        say(lb, "from the second")
        assert lines_of(lb, "--gen", "1") == ["slot 1, generation 1 listens", "from the first"]
        assert lines_of(lb, "web.1", "--gen", "2") == ["slot 1, generation 2 listens", "from the second"]
        assert lines_of(lb, "web.1@1") == ["slot 1, generation 1 listens", "from the first"], "as messages name it"
        assert lines_of(lb, "web@2", "-n", "1", "--since", "10m") == ["from the second"]
        unknown = lb.cli("logs", "web.1@9")
        assert (unknown.returncode, unknown.stderr) == (
            2,
            "lbproxy: no lines of generation 9 of web.1 (there is: 1, 2)\n",
        )
        (last,) = [json.loads(line) for line in lb.cli("logs", "-n", "1", "--json").stdout.splitlines()]
        assert (last["backend"], last["generation"], last["line"]) == ("web.1@2", 2, "from the second")


def test_following_shows_new_lines_also_of_generations_to_come(tmp_path: Path) -> None:
    with serving(web(size=1), tmp_path) as lb:
        with subprocess.Popen(lb.command("logs", "-f"), stdout=subprocess.PIPE, text=True) as following:
            assert following.stdout is not None
            assert "generation 1 listens" in following.stdout.readline()
            say(lb, "hello")
            assert following.stdout.readline().endswith("| hello\n")
            lb.cli("reload")
            assert "generation 2 listens" in following.stdout.readline()
            following.terminate()
        with subprocess.Popen(lb.command("logs", "-f"), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as following:
            assert following.stdout is not None
            following.stdout.readline()
            assert lb.stop() == 0  # a follower does not hold it up
            _, told = following.communicate(timeout=10)
            assert (following.returncode, told) == (0, b"lbproxy: there are no more lines: it has stopped\n")


RUBBISH = r"""
printf '\033[2J\377\000\001 rubbish\n'
head -c 300000 /dev/zero | tr '\0' x
sleep 1000 &
exec "$@"
"""


def test_rubbish_endless_lines_and_a_grandchild_that_keeps_the_output_open_disturb_nobody(tmp_path: Path) -> None:
    (tmp_path / "start").write_text(RUBBISH)
    with serving(web(size=1, command="sh $dir/start $brittle"), tmp_path) as lb:
        assert lb.get("/whoami").status == 200
        shown = lb.cli("logs").stdout
        assert "rubbish" in shown
        assert "\x1b" not in shown
        assert "\x00" not in shown
        assert [line for line in lb.log().splitlines() if "rubbish" in line]
        assert "\x1b" not in lb.log()
        # A line without an end is shown in pieces.
        pieces = [line for line in lines_of(lb) if line.startswith("xxx")]
        assert max(map(len, pieces)) <= 8192
        assert sum(line.count("x") for line in pieces) >= 290_000
        # The grandchild does not hold up the end of its backend.
        assert lb.cli("reload").returncode == 0
        assert lb.stop() == 0
        lb.wait_nothing_left(2)


def test_a_flood_disturbs_neither_requests_nor_control(tmp_path: Path) -> None:
    flood = "sh -c 'yes all work and no play & exec $brittle'"
    with serving(web(size=1, command=flood), tmp_path) as lb, load(lb.port, clients=2) as clients:
        clients.wait_more(100)
        assert lb.cli("status", "-q").returncode == 0
        assert len(lines_of(lb, "-n", "5000")) <= 1000
        assert lb.cli("reload").returncode == 0
        assert clients.lost == []
        logged = lb.log().count('"line":"all work and no play"')
        assert 0 < logged < 20_000, "a part of it is logged, the rest is counted"
        assert lb.stop() == 0


def test_last_words_without_a_line_end_are_kept(tmp_path: Path) -> None:
    restart = 'give_up = { crashes = 1, within = "60s" }'
    with serving(web(size=1, command="sh -c 'printf last-words; exit 3'", restart=restart), tmp_path, wait=False) as lb:
        lb.wait_log("backend.failed")
        assert "last-words" in lines_of(lb)


def test_what_a_serving_backend_wrote_outlives_rolled_back_reloads(tmp_path: Path) -> None:
    with serving(web(size=1), tmp_path) as lb:
        say(lb, "from the one that serves")
        lb.write_config(web('env = { BREAK = "import" }', size=1))
        for _ in range(5):
            assert lb.cli("reload").returncode == 5
        assert "from the one that serves" in lines_of(lb, "web.1", "--gen", "1")
        assert "from the one that serves" in lines_of(lb, "web.1", "-n", "1000")


def test_a_talkative_backend_is_thinned_in_the_log_and_not_in_logs(tmp_path: Path) -> None:
    with serving(web(size=1, more="[log]\nbackend_lines = 10"), tmp_path) as lb:
        say(lb, "number %", 500)
        lb.wait_log("more lines than the log takes in a second")
        assert len([line for line in lb.log().splitlines() if '"line":"number ' in line]) <= 20
        assert [line for line in lines_of(lb, "-n", "1000") if "number" in line] == [f"number {n}" for n in range(500)]


@pytest.mark.parametrize("path", ["-", "access.log"])
def test_the_access_log_is_shown_and_followed_wherever_it_goes(tmp_path: Path, path: str) -> None:
    def get(name: str, count: int) -> list[str]:
        targets = [f"/whoami?{name}={number}" for number in range(count)]
        for target in targets:
            lb.get(target)
        return targets

    def targets_of(lines: Iterable[str]) -> list[str]:
        return sorted(re.findall(r"/whoami\?\w+=\d", "".join(lines)))

    with serving(web(size=1, workers=2, more=f'[log]\naccess_path = "{path}"'), tmp_path) as lb:
        first = get("first", 8)
        lb.wait_until(lambda: len(lb.cli("logs", "access").stdout.splitlines()) == 8)
        assert len(lb.cli("logs", "access", "-n", "3", "--since", "1m").stdout.splitlines()) == 3
        (last,) = lb.cli("logs", "access", "--json", "-n", "1").stdout.splitlines()
        assert targets_of([json.loads(last)["line"]])
        with subprocess.Popen(lb.command("logs", "access", "-f"), stdout=subprocess.PIPE, text=True) as following:
            assert following.stdout is not None
            assert targets_of(islice(following.stdout, 8)) == first
            second = get("second", 4)
            assert targets_of(islice(following.stdout, 4)) == second
            os.kill(lb.status()["workers"][0]["pid"], signal.SIGKILL)
            lb.wait_until(lambda: lb.log().count("worker.started") == 3)
            lb.wait_ready()
            third = get("third", 8)
            assert targets_of(islice(following.stdout, 8)) == third
            assert lb.stop() == 0
            assert (following.wait(10), following.stdout.read()) == (0, "")
