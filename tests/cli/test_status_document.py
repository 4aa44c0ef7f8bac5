from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.fake_control import FakeControl, fake_control

from lbproxy.cli.client import ControlClient
from lbproxy.cli.options import Fail
from lbproxy.cli.status_document import exit_code, status_of


def document(**ready: int) -> dict[str, Any]:
    """Pools of two backends each, and how many of them are ready."""
    return {
        "workers": [{"state": "serving"}],
        "workers_wanted": 1,
        "pools": {name: {"ready": number, "size": 2} for name, number in ready.items()},
    }


@pytest.fixture
def control(tmp_path: Path) -> Iterator[FakeControl]:
    with fake_control(tmp_path / "lb.sock") as control:
        control.answers["GET /v1/status"] = document(web=2, api=1)
        yield control


def test_one_pool_may_be_asked_for(control: FakeControl) -> None:
    client = ControlClient(control.path)
    assert list(status_of(client, None)["pools"]) == ["web", "api"]
    assert list(status_of(client, "api")["pools"]) == ["api"]
    with pytest.raises(Fail, match="no pool 'wbe'"):
        status_of(client, "wbe")


def test_less_than_all_is_degraded_but_what_an_operator_has_drained_is_not() -> None:
    assert exit_code(document(web=2)) == 0
    assert exit_code(document(web=2, api=1)) == 4
    assert exit_code({**document(web=2), "workers": [{"state": "starting"}]}) == 4
    drained = document(web=1)
    drained["pools"]["web"]["drained"] = 1
    assert exit_code(drained) == 0
