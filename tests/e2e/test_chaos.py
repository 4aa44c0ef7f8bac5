"""Everything at once, in a random order: deploys good and bad, kills of everything but control, signals, other sizes.

What must hold whatever the order: requests are lost only within a second of a kill, no more of them than there were
clients; in the end the newest good configuration serves in full, nothing is left over, and `stop` leaves nothing.
"""

import contextlib
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import pytest
from support.load import Clients, load
from support.serve import Serving, serving
from support.web import web

CLIENTS = 4
HEALTH = 'path = "/healthz"\ninterval = "500ms"\nstart_timeout = "2s"'
RESTART = (
    'stop_timeout = "2s"\nbackoff = { first = "100ms", max = "200ms" }\ngive_up = { crashes = 100, within = "60s" }'
)


class Chaos:
    def __init__(self, lb: Serving, clients: Clients, draw: random.Random) -> None:
        self.lb = lb
        self.clients = clients
        self.draw = draw
        self.kills: list[tuple[float, float]] = []  # from when to when something dies
        self.size = 2
        self.done: list[str] = []

    def act(self) -> None:
        actions: list[Callable[[], None]] = [
            self.reload,
            self.reload,
            self.reload_by_signal,
            self.broken_deploy,
            self.deploy_that_dies_late,
            self.mistake,
            self.other_size,
            self.kill_backend,
            self.kill_worker,
            self.kill_guard,
            self.reload_and_kill,
        ]
        action = self.draw.choice(actions)
        self.done.append(action.__name__)
        action()
        self.clients.wait_more(10)

    def good(self, env: str = "") -> str:
        return web(env, size=self.size, workers=2, health=HEALTH, restart=RESTART)

    def reload(self) -> None:
        assert self.lb.cli("reload").returncode in (0, 8)

    def reload_by_signal(self) -> None:
        self.lb.signal(self.draw.choice([signal.SIGUSR2, signal.SIGHUP]))

    def broken_deploy(self) -> None:
        self.lb.write_config(self.good(f'env = {{ BREAK = "{self.draw.choice(["import", "health"])}" }}'))
        assert self.lb.cli("reload").returncode in (5, 8)
        self.lb.write_config(self.good())

    def deploy_that_dies_late(self) -> None:
        self.lb.write_config(self.good('env = { LIVES = "0.9" }'))
        began = monotonic()
        assert self.lb.cli("reload").returncode in (0, 5, 8)
        self.lb.write_config(self.good())
        self.reload_until_done()
        self.kills += [(began, monotonic())] * 4  # they die by themselves, some twice, with requests on them

    def mistake(self) -> None:
        self.lb.write_config(self.good() + "wokers = 1\n")
        assert self.lb.cli("reload").returncode in (78, 8)
        self.lb.write_config(self.good())

    def other_size(self) -> None:
        self.size = self.draw.choice([1, 2, 3])
        self.lb.write_config(self.good())
        assert self.lb.cli("reload", "--config-only").returncode in (0, 8)

    def kill(self, pids: list[int]) -> None:
        if pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.draw.choice(pids), signal.SIGKILL)
            self.kills.append((monotonic(), monotonic()))

    def kill_backend(self) -> None:
        self.kill([one["pid"] for one in self.lb.backends() if one["pid"]])

    def kill_worker(self) -> None:
        self.kill([one["pid"] for one in self.lb.status()["workers"]])

    def kill_guard(self) -> None:
        for pid in self.lb.pids_of("lbproxy.supervise.guard"):
            os.kill(pid, signal.SIGKILL)

    def reload_and_kill(self) -> None:
        self.lb.cli("reload", "--no-wait")
        self.draw.choice([self.kill_backend, self.kill_worker, self.kill_guard])()

    def reload_until_done(self) -> None:
        codes = []
        while not codes or codes[-1] == 8:
            self.lb.wait_until(lambda: not self.lb.status()["pools"]["web"]["reloading"])
            codes.append(self.lb.cli("reload").returncode)
        assert codes[-1] == 0, codes

    def assert_only_kills_lost_requests(self) -> None:
        late = [lost for lost in self.clients.lost if not any(a - 1 < lost.at < b + 1 for a, b in self.kills)]
        assert not late, (late, self.done)
        assert len(self.clients.lost) <= CLIENTS * len(self.kills), self.done


def chaos(directory: Path, seed: int, actions: int) -> None:
    draw = random.Random(seed)
    config = web(size=2, workers=2, health=HEALTH, restart=RESTART)
    how = {"keep_alive": seed % 2 == 0, "path": "/slow?s=0.05" if seed % 3 == 0 else "/whoami"}
    with serving(config, directory) as lb, load(lb.port, clients=CLIENTS, **how) as clients:
        monkey = Chaos(lb, clients, draw)
        for _ in range(actions):
            monkey.act()
        monkey.reload_until_done()
        lb.wait_ready()
        lost = len(clients.lost)
        clients.wait_more(50)
        assert len(clients.lost) == lost
        monkey.assert_only_kills_lost_requests()
        status = lb.status()["pools"]["web"]
        assert {one["generation"] for one in status["backends"]} == {status["generation"]}
        assert len(status["backends"]) == monkey.size
        # control, its guard, two workers, the backends: nobody else
        lb.wait_until(lambda: len(lb.processes()) == 4 + monkey.size)
        assert "lbproxy made a mistake" not in lb.log()
        ours = [line for line in lb.log().splitlines() if '"backend.' not in line and '"reload.' not in line]
        assert not [line for line in ours if "Traceback" in line], monkey.done


@pytest.mark.soak
@pytest.mark.timeout(400)
@pytest.mark.parametrize("seed", range(8))
def test_everything_at_once(tmp_path: Path, seed: int) -> None:
    chaos(tmp_path, seed, 25)


def test_a_little_of_everything_at_once(tmp_path: Path) -> None:
    chaos(tmp_path, 100, 5)
