"""The reply door is an interface: each implementation has all of it, called alike."""

import inspect

import pytest

from lbproxy.worker.http2.reply import Http2Reply
from lbproxy.worker.reply import Reply
from lbproxy.worker.task.http1_reply import Http1Reply

METHODS = [name for name, value in vars(Reply).items() if inspect.isfunction(value) and not name.startswith("_")]


@pytest.mark.parametrize("made", [Http1Reply, Http2Reply])
@pytest.mark.parametrize("name", METHODS)
def test_an_implementation_takes_what_the_interface_says(made: type, name: str) -> None:
    assert inspect.signature(getattr(made, name)) == inspect.signature(getattr(Reply, name))


def test_the_interface_is_what_design_3_names() -> None:
    assert {"head", "interim", "data", "end", "error", "cut"} <= set(METHODS)
