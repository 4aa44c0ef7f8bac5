"""The queries of configs/grafana.json as Grafana would send them."""

import json
from pathlib import Path
from typing import Any

PATH = Path(__file__).parents[2] / "configs" / "grafana.json"
VALUES = {"$__rate_interval": "1m", "$instance": ".*", "$pool": ".*"}


def dashboard() -> dict[str, Any]:
    return json.loads(PATH.read_text())


def queries() -> dict[str, str]:
    """By the title of the panel and the letter of the query, with every variable filled in."""
    found = dashboard()
    written = {
        f"{panel['title']} {panel['id']}{target['refId']}": target["expr"]
        for panel in found["panels"]
        for target in panel.get("targets", ())
    }
    written |= {f"annotation {one['name']}": one["expr"] for one in found["annotations"]["list"]}
    return {name: filled(expression) for name, expression in written.items()}


def filled(expression: str) -> str:
    for name, value in VALUES.items():
        expression = expression.replace(name, value)
    assert "$" not in expression, f"a variable without a value: {expression}"
    return expression
