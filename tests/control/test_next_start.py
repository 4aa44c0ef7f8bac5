"""What a reload cannot change."""

import dataclasses

from control.fakes import pool_settings, settings_of
from lbproxy.config import schema
from lbproxy.control.next_start import waiting_keys

SETTINGS = settings_of(pool_settings())


def test_the_keys_are_those_of_which_explain_says_so() -> None:
    proxy = dict.fromkeys(("control", "pid_file", "state_dir", "control_group", "user"), "/elsewhere")
    new = dataclasses.replace(
        SETTINGS,
        proxy=dataclasses.replace(SETTINGS.proxy, **proxy, workers=1),
        log=dataclasses.replace(SETTINGS.log, format="text"),
    )
    found = waiting_keys(SETTINGS, new, worker_count=2)
    said = {
        f"{name}.{key}"
        for name, table in (("proxy", schema.ProxyTable), ("log", schema.LogTable))
        for key, info in table.model_fields.items()
        for fact in info.metadata
        if getattr(fact, "applies", None) == schema.NEXT_START
    }
    assert set(found) == said | {"proxy.workers"}, "more workers come at once, fewer do not"


def test_nothing_waits_where_nothing_differs() -> None:
    assert waiting_keys(SETTINGS, SETTINGS, worker_count=1) == []
