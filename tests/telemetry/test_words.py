import pytest

from lbproxy.telemetry.words import compact, count


@pytest.mark.parametrize(("number", "text"), [(0, "0 requests"), (1, "1 request"), (2, "2 requests")])
def test_a_number_has_the_noun_that_goes_with_it(number: int, text: str) -> None:
    assert count(number, "request") == text


def test_a_plural_can_be_its_own_word() -> None:
    assert count(2, "crash", "crashes") == "2 crashes"


def test_json_has_no_blanks_between_its_parts() -> None:
    assert compact({"a": [1, 2], "b": "x y"}) == '{"a":[1,2],"b":"x y"}'
