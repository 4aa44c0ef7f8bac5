from lbproxy.config import schema
from lbproxy.config.kinds import DURATION, TARGET
from lbproxy.config.tables import container_of, facts_of, keys, kind_of, table_at, table_in, tables, texts_below


def test_keys_are_spelt_as_in_the_file():
    assert keys(schema.QueueTable) == ["size", "timeout"]


def test_every_table_is_found_with_its_name():
    found = dict(tables(schema.Document))
    assert found[""] is schema.Document
    assert found["listener.limits"] is schema.ListenerLimitsTable
    assert found["pool.*.limits.queue"] is schema.QueueTable


def test_a_path_leads_to_its_table():
    assert table_at(()) is schema.Document
    assert table_at(("listener", 0, "timeouts")) is schema.ListenerTimeoutsTable
    assert table_at(("pool", "web", "restart", "backoff")) is schema.BackoffTable


def test_a_pool_may_be_called_like_a_key():
    assert table_at(("pool", "health")) is schema.PoolTable
    assert table_at(("pool", "health", "drain")) is schema.DrainTable


def test_a_field_tells_its_kind_and_whether_it_has_several_values():
    fields = schema.PoolTable.model_fields
    assert kind_of(fields["targets"]) is TARGET
    assert container_of(fields["targets"]) is list
    assert container_of(fields["env"]) is dict
    assert container_of(fields["command"]) is None
    assert kind_of(fields["bind"]) is None
    assert table_in(fields["drain"].annotation) is schema.DrainTable
    assert kind_of(schema.DrainTable.model_fields["request_s"]) is DURATION
    assert facts_of(fields["drain"]).example is None


def test_the_text_below_a_key_is_read_from_the_source():
    assert texts_below(schema.RouteTable)["pool"].startswith("The pool")
    assert set(texts_below(schema.QueueTable)) == set(schema.QueueTable.model_fields)
