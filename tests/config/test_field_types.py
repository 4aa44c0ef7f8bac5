import pytest
from pydantic import TypeAdapter, ValidationError

from lbproxy.config import field_types


def test_a_duration_is_read_to_seconds_and_zero_is_none_where_one_is_needed() -> None:
    assert TypeAdapter(field_types.Seconds).validate_python("250ms") == 0.25
    with pytest.raises(ValidationError):
        TypeAdapter(field_types.SomeSeconds).validate_python("0s")
