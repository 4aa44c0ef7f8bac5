import pytest
from pydantic import ValidationError

from lbproxy.config.table import Table


class Some(Table):
    idle_s: float | None = None
    size: int | None = None


def test_a_key_has_no_unit_and_only_what_is_given_is_a_setting() -> None:
    assert Some.model_validate({"idle": 2.0}).given() == {"idle_s": 2.0}
    assert Some.model_validate({}).given() == {}


@pytest.mark.parametrize("document", [{"idle_s": 2.0}, {"other": 1}, {"size": "1"}, {"size": True}])
def test_a_table_takes_no_other_key_and_converts_nothing(document: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Some.model_validate(document)
