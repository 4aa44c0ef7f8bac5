"""Slow start on a real lbproxy: a backend that has just come gets little work, also after a restart of that one."""

from collections import Counter
from pathlib import Path

from support.serve import Serving, serving

CONFIG = """
[proxy]
workers = 1

[[listener]]
address = "127.0.0.1:$port"

[pool.web]
command = "$longlived --port {port}"
size = 2
slow_start = "1h"
[pool.web.reload]
min_ready = "0s"
max_surge = "100%"
"""


def shares(lb: Serving, times: int = 60) -> Counter[str]:
    return Counter(lb.get("/whoami").json()["slot"] for _ in range(times))


def test_a_backend_that_is_restarted_gets_little_at_first_and_new_ones_share_alike(tmp_path: Path) -> None:
    with serving(CONFIG, tmp_path) as lb:
        assert lb.cli("restart", "web.2").returncode == 0
        assert lb.cli("reload").returncode == 0  # all are new together
        together = shares(lb)
        assert abs(together["1"] - together["2"]) < 40, together
        lb.write_config(CONFIG.replace("1h", "200ms"))
        assert lb.cli("reload", "--config-only").returncode == 0
        shares(lb)  # they are warm now
        lb.write_config(CONFIG)
        assert lb.cli("reload", "--config-only").returncode == 0
        assert lb.cli("restart", "web.2").returncode == 0
        alone = shares(lb)
        assert alone["2"] < 15, alone
