"""Who owns a stream has all that its connection calls, called alike."""

import inspect

import pytest

from lbproxy.worker.backends.http2_stream import BackendStream
from lbproxy.worker.backends.stream_owner import Loss, StreamOwner

METHODS = [name for name, value in vars(StreamOwner).items() if inspect.isfunction(value) and not name.startswith("_")]


@pytest.mark.parametrize("name", METHODS)
def test_an_owner_takes_what_the_interface_says(name: str) -> None:
    assert inspect.signature(getattr(BackendStream, name)) == inspect.signature(getattr(StreamOwner, name))


def test_a_loss_is_the_backends_fault_unless_it_says_otherwise() -> None:
    loss = Loss("gone")
    assert (loss.is_unread, loss.is_accident, loss.status) == (False, False, 502)
