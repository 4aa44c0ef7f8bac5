import tomllib
from typing import Any

import pytest

from lbproxy.config.unsupported import NOT_YET, NotYet, take_out


def example(not_yet: NotYet) -> dict[str, Any]:
    """A document that has this key."""
    *above, key = not_yet.path
    node: Any = {key: not_yet.only[0] if not_yet.only else 1}
    for part in reversed(above):
        node = [node] if part == "*" and above[0] == "listener" else {"web" if part == "*" else part: node}
    return node


@pytest.mark.parametrize("not_yet", NOT_YET, ids=lambda not_yet: ".".join(not_yet.path))
def test_what_is_not_supported_yet_is_said_and_taken_out(not_yet: NotYet):
    document = example(not_yet)
    [finding] = take_out(document)
    assert finding.message.endswith(" is not supported yet")
    assert finding.path[-1] == not_yet.path[-1]
    assert take_out(document) == []


def test_what_works_stays():
    text = """
    listener = [{ mode = "http", proxy_protocol = "off" }, { mode = "tcp" }]
    [pool.web.reload]
    on_failure = "rollback"
    """
    document = tomllib.loads(text)
    assert take_out(document) == []
    assert document == tomllib.loads(text)


def test_every_listener_and_pool_is_looked_at():
    document = tomllib.loads("[pool]\na.sticky.cluster = true\nb.sticky = {}\nd.sticky.cluster = true")
    assert [finding.message for finding in take_out(document)] == [
        "pool.a.sticky.cluster = true is not supported yet",
        "pool.d.sticky.cluster = true is not supported yet",
    ]


@pytest.mark.parametrize(
    "text", ["listener = 1", "[listener]\nmode = 1", "pool = [1]", "[pool]\nweb = 1", "listener = [1]"]
)
def test_a_document_of_another_shape_is_left_alone(text: str):
    assert take_out(tomllib.loads(text)) == []
