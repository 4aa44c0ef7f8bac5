from lbproxy.config.events_tables import EventsTable
from lbproxy.config.secret import Secrets


def test_a_sink_needs_a_url_and_the_rest_has_defaults_elsewhere() -> None:
    document = {"webhook": {"url": "http://h/"}, "redis": {"url": "redis://h", "events": ["reload.*"]}}
    table = EventsTable.model_validate(document, context=Secrets())
    assert table.webhook is not None
    assert table.redis is not None
    assert (list(table.webhook.given()), table.webhook.url.value) == (["url"], "http://h/")
    assert table.redis.given()["events"] == ["reload.*"]
