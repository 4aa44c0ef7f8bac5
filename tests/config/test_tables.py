from lbproxy.config import listener_tables, pool_tables, schema
from lbproxy.config.kinds import DURATION, TARGET
from lbproxy.config.tables import container_of, facts_of, keys, kind_of, table_at, table_in, tables, texts_below


def test_keys_are_spelt_as_in_the_file():
    assert keys(pool_tables.QueueTable) == ["size", "timeout"]


def test_every_table_is_found_with_its_name():
    found = dict(tables(schema.Document))
    assert found[""] is schema.Document
    assert found["listener.limits"] is listener_tables.ListenerLimitsTable
    assert found["pool.*.limits.queue"] is pool_tables.QueueTable


def test_a_path_leads_to_its_table():
    assert table_at(()) is schema.Document
    assert table_at(("listener", 0, "timeouts")) is listener_tables.ListenerTimeoutsTable
    assert table_at(("pool", "web", "restart", "backoff")) is pool_tables.BackoffTable


def test_a_pool_may_be_called_like_a_key():
    assert table_at(("pool", "health")) is pool_tables.PoolTable
    assert table_at(("pool", "health", "drain")) is pool_tables.DrainTable


def test_a_field_tells_its_kind_and_whether_it_has_several_values():
    fields = pool_tables.PoolTable.model_fields
    assert kind_of(fields["targets"]) is TARGET
    assert container_of(fields["targets"]) is list
    assert container_of(fields["env"]) is dict
    assert container_of(fields["command"]) is None
    assert kind_of(fields["bind"]) is None
    assert table_in(fields["drain"].annotation) is pool_tables.DrainTable
    assert kind_of(pool_tables.DrainTable.model_fields["request_s"]) is DURATION
    assert facts_of(fields["drain"]).example is None


def test_the_text_below_a_key_is_read_from_the_source():
    assert texts_below(listener_tables.RouteTable)["pool"].startswith("The pool")
    assert set(texts_below(pool_tables.QueueTable)) == set(pool_tables.QueueTable.model_fields)
