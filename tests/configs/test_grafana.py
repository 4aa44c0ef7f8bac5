"""Every query of grafana.json and every alert against a real Prometheus that has scraped a real lbproxy.

Not tried here: a Grafana.
"""

import contextlib
import http.client
import json
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import urlencode

import pytest
import yaml
from support.certificates import certificate
from support.dashboard import queries
from support.load import load
from support.ports import free_port
from support.serve import serving
from support.web import web

from lbproxy.telemetry.metrics import FAMILIES

CONFIGS = Path(__file__).parents[2] / "configs"
SCRAPES = 4  # rate() needs two, and a reload between two others


class Prometheus:
    def __init__(self, port: int) -> None:
        self._port = port

    def get(self, path: str, **values: str) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
        with contextlib.closing(connection):
            connection.request("GET", f"/api/v1/{path}?{urlencode(values)}")
            answer = json.loads(connection.getresponse().read())
        assert answer["status"] == "success", answer
        return answer["data"]

    def series(self, query: str) -> list[dict[str, Any]]:
        return self.get("query", query=query)["result"]


@contextlib.contextmanager
def prometheus(target: int, directory: Path) -> Iterator[Prometheus]:
    """A Prometheus with our files, which scrapes twice a second."""
    port = free_port()
    text = (CONFIGS / "prometheus.yml").read_text().replace("127.0.0.1:9901", f"127.0.0.1:{target}")
    text = text.replace("scrape_interval: 15s", "scrape_interval: 500ms").replace("interval: 15s", "interval: 1s")
    (directory / "prometheus.yml").write_text(text)
    (directory / "alerts.yml").write_bytes((CONFIGS / "alerts.yml").read_bytes())
    command = [
        "prometheus",
        f"--config.file={directory}/prometheus.yml",
        f"--storage.tsdb.path={directory}/data",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            assert any("Server is ready" in line for line in process.stderr)
            drain = threading.Thread(target=process.stderr.read)
            drain.start()
            yield Prometheus(port)
        finally:
            process.terminate()
        drain.join()


@pytest.mark.peer("prometheus")
def test_every_query_finds_series_and_no_alert_fires_for_a_healthy_lbproxy(tmp_path: Path) -> None:
    tls = certificate(tmp_path, "lb.example", days=(-1, 60)).tls
    secured = f'[[listener]]\nname = "secured"\naddress = "127.0.0.1:$port3"\ntls = {{ {tls} }}\n'
    config = web(workers=2, more=f'{secured}[admin]\naddress = "127.0.0.1:$port2"')
    with serving(config, tmp_path) as lb, prometheus(lb.ports["port2"], tmp_path) as asked:

        def wait_scrapes(number: int) -> None:
            until = monotonic() + 30
            query = "sum(count_over_time(lbproxy_build_info[5m]))"
            while monotonic() < until and not ((got := asked.series(query)) and float(got[0]["value"][1]) >= number):
                lb.wait_until(lambda: lb.get("/").status == 200)
            assert monotonic() < until, f"no {number} scrapes in 30 s"

        with load(lb.port) as clients:
            clients.wait_more(50)
            wait_scrapes(2)
            assert lb.cli("reload").returncode == 0
            wait_scrapes(2 + SCRAPES)
        empty = [name for name, query in queries().items() if not asked.series(query)]
        assert empty == []

        (rate,) = asked.series('sum(rate(lbproxy_http_requests_total{code="200"}[1m]))')
        assert float(rate["value"][1]) > 0
        written = yaml.safe_load((CONFIGS / "alerts.yml").read_text())["groups"][0]["rules"]
        (group,) = asked.get("rules")["groups"]
        states = {rule["name"]: (rule["health"], rule["state"]) for rule in group["rules"]}
        assert states == {rule["alert"]: ("ok", "inactive") for rule in written}


def test_the_names_in_alerts_and_dashboard_are_those_of_the_metrics() -> None:
    known = {family.name for family in FAMILIES}
    for name in ("alerts.yml", "grafana.json"):
        used = set(re.findall(r"\blbproxy_\w+", (CONFIGS / name).read_text()))
        assert {re.sub(r"_(total|bucket|count|sum)$", "", one) for one in used} <= known
    shown = set(
        re.findall(r"\blbproxy_[a-z0-9_]+?(?=_total|_bucket|_count|_sum|\W)", (CONFIGS / "grafana.json").read_text())
    )
    missing = {family.name for family in FAMILIES} - shown
    assert missing == {"lbproxy_backend_up"}, "a metric that is on no panel"
