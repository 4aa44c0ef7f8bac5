"""prometheus.yml, alerts.yml and the syntax of grafana.json, as Prometheus' own promtool reads them.

Not tried here: a Grafana. Whether the queries find series is a test with a real Prometheus (test_grafana.py).
"""

import json
import subprocess
from itertools import combinations
from pathlib import Path

import pytest
import yaml
from support.dashboard import dashboard, queries

CONFIGS = Path(__file__).parents[2] / "configs"
pytestmark = pytest.mark.peer("promtool")


def promtool(*words: str) -> str:
    done = subprocess.run(["promtool", *words], capture_output=True, text=True, timeout=60, check=False, cwd=CONFIGS)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_accepts_the_configuration_and_every_alert_passes_its_tests() -> None:
    assert "is valid prometheus config" in promtool("check", "config", "prometheus.yml")
    promtool("check", "rules", "--lint=all", "--lint-fatal", "alerts.yml")
    assert "SUCCESS" in promtool("test", "rules", "alerts_test.yml")


def test_every_alert_has_a_test_in_which_it_fires_and_one_in_which_it_is_silent() -> None:
    (group,) = yaml.safe_load((CONFIGS / "alerts.yml").read_text())["groups"]
    names = {rule["alert"] for rule in group["rules"]}
    checks = [
        check
        for test in yaml.safe_load((CONFIGS / "alerts_test.yml").read_text())["tests"]
        for check in test["alert_rule_test"]
    ]
    assert {check["alertname"] for check in checks if check["exp_alerts"]} == names
    assert {check["alertname"] for check in checks if not check["exp_alerts"]} == names
    assert {rule["labels"]["severity"] for rule in group["rules"]} == {"page", "ticket"}


def test_every_query_of_the_dashboard_is_promql(tmp_path: Path) -> None:
    rules = [{"record": f"query:{number}", "expr": expr} for number, expr in enumerate(queries().values())]
    assert len(rules) > 30
    path = tmp_path / "queries.yml"
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))  # JSON is YAML
    assert f"{len(rules)} rules found" in promtool("check", "rules", str(path))


def test_the_panels_stand_beside_each_other_and_ask_the_chosen_prometheus() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for target in panel.get("targets", ()):
            assert target["datasource"]["uid"] == "${datasource}"
    for one, other in combinations([panel["gridPos"] for panel in panels], 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above, (one, other)
