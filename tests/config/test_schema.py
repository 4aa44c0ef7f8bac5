"""The classes of the schema: every field has a setting, every key says what it does."""

import dataclasses

import pytest

from lbproxy import settings
from lbproxy.config import listener_tables, pool_tables, schema
from lbproxy.config.kinds import Kind
from lbproxy.config.schema import Document
from lbproxy.config.table import REPLACES, Table
from lbproxy.config.tables import kind_of, table_in, tables, texts_below

TABLES = [pytest.param(table, id=path or "the file") for path, table in tables(Document)]


@pytest.mark.parametrize("table", TABLES)
def test_every_key_says_in_one_line_what_it_does(table: type[Table]):
    assert (table.__doc__ or "").endswith(".")
    for name, info in table.model_fields.items():
        if table_in(info.annotation) is None:
            about = texts_below(table).get(name, "")
            assert about.endswith("."), f"{table.__name__}.{name}: a text below the field says what the key does"
            assert "\n" not in about, f"{table.__name__}.{name}"


@pytest.mark.parametrize("table", TABLES)
def test_every_key_has_a_kind_or_a_few_words(table: type[Table]):
    for name, info in table.model_fields.items():
        if table_in(info.annotation) is None:
            assert isinstance(kind_of(info), Kind) or "Literal" in str(info.annotation), f"{table.__name__}.{name}"


def test_every_field_is_one_of_the_settings():
    pairs = [
        (listener_tables.ListenerLimitsTable, settings.ListenerLimits),
        (listener_tables.ListenerTimeoutsTable, settings.ListenerTimeouts),
        (listener_tables.RouteTable, settings.RouteSettings),
        (pool_tables.HealthTable, settings.HealthSettings),
        (pool_tables.DrainTable, settings.DrainSettings),
        (pool_tables.PoolTimeoutsTable, settings.PoolTimeouts),
        (schema.LogTable, settings.LogSettings),
        (schema.ProxyTable, settings.ProxySettings),
    ]
    for table, values in pairs:
        assert set(table.model_fields) == {field.name for field in dataclasses.fields(values)}


def test_what_needs_new_backends_is_what_a_generation_is_made_of():
    """As diff.is_same_making has it; the environment is both `env` and `env_file`."""
    replacing = {
        key
        for key, info in pool_tables.PoolTable.model_fields.items()
        for fact in info.metadata
        if getattr(fact, "applies", None) == REPLACES
    }
    assert replacing == {"command", "user", "bind", "protocol", "directory", "env", "env_file"}
