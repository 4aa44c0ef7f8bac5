import json

import pytest

from lbproxy.cli.main import run


def test_the_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    pool = schema["properties"]["pool"]["additionalProperties"]["properties"]
    websocket = pool["drain"]["properties"]["websocket"]
    assert websocket["default"] == "5s"
    assert websocket["type"] == "string"
    assert "spread evenly" in websocket["description"]
    assert schema["properties"]["listener"]["items"]["required"] == ["address"]
