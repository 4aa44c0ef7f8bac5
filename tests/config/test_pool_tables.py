from lbproxy.config.pool_tables import PoolTable


def test_a_command_is_split_into_words() -> None:
    assert PoolTable.model_validate({"command": "app --port {port}"}).given() == {
        "command": ["app", "--port", "{port}"]
    }
