from lbproxy.config.listener_tables import ListenerTable


def test_an_address_is_enough_for_a_listener() -> None:
    assert list(ListenerTable.model_validate({"address": ":8080"}).given()) == ["address"]
