from types import SimpleNamespace
from typing import Any

import pytest

from lbproxy.config import secret_types
from lbproxy.config.secret import Secrets
from lbproxy.settings import Secret

INFO: Any = SimpleNamespace(context=Secrets("", {"HOOK": "https://h/x", "CACHE": "rediss://h/0"}))


def test_a_url_may_be_in_a_variable() -> None:
    assert secret_types.webhook_url("env:HOOK", INFO) == Secret("https://h/x", "HOOK")
    assert secret_types.redis_url("env:CACHE", INFO) == Secret("rediss://h/0", "CACHE")
    assert secret_types.any_secret("x", INFO) == Secret("x")


@pytest.mark.parametrize(
    ("read", "value"),
    [
        (secret_types.webhook_url, "env:CACHE"),
        (secret_types.redis_url, "env:HOOK"),
        (secret_types.token, "too-short"),
        (secret_types.any_secret, ""),
    ],
)
def test_what_it_is_not_is_a_mistake(read: Any, value: str) -> None:
    with pytest.raises(ValueError):
        read(value, INFO)
