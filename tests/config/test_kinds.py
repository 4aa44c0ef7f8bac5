"""A kind writes what its reader reads: the example of each, and what becomes of it."""

from typing import get_args

import pytest

from lbproxy.config import kinds, schema
from lbproxy.config.kinds import Kind

# A token is read with the directory and the environment that it may stand in: test_secret.py.
ALIASES = {
    name: get_args(alias)
    for name, alias in vars(schema).items()
    if name != "Token" and any(isinstance(part, Kind) for part in getattr(alias, "__metadata__", ()))
}


@pytest.mark.parametrize("name", ALIASES)
def test_the_example_of_a_kind_is_read_and_written_again(name: str):
    _, reader, kind = ALIASES[name]
    value = reader.read(kind.example)
    if name == "Words":
        assert kind.written(value) == kind.example.split()
    elif name == "Surge":
        assert value == (2, False)
    else:
        assert kind.written(value) == kind.example


def test_no_limit_is_zero_in_the_file():
    assert kinds.NATURAL.written(kinds.NO_LIMIT) == 0
    assert kinds.SIZE.written(kinds.NO_LIMIT) == "0"


def test_status_codes_are_written_as_ranges():
    assert kinds.STATUSES.written(((200, 399), (404, 404))) == "200-399,404"
