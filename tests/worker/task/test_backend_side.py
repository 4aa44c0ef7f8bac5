"""The backend door is an interface: each implementation has all of it, called alike."""

import inspect

import pytest

from lbproxy.worker.task.backend_side import BackendSide
from lbproxy.worker.task.http1_backend import Http1Backend
from lbproxy.worker.task.http2_backend import Http2Backend

METHODS = [name for name, value in vars(BackendSide).items() if inspect.isfunction(value) and not name.startswith("_")]


@pytest.mark.parametrize("made", [Http1Backend, Http2Backend])
@pytest.mark.parametrize("name", METHODS)
def test_an_implementation_takes_what_the_interface_says(made: type, name: str) -> None:
    assert inspect.signature(getattr(made, name)) == inspect.signature(getattr(BackendSide, name))
