"""A total goes on where its source was replaced."""

from lbproxy.control.measured import Growing


def test_a_new_source_begins_at_nothing_and_the_total_goes_on() -> None:
    growing = Growing()
    assert [growing.total("public", source, value) for source, value in ((1, 5), (1, 9), (2, 0), (2, 4), (3, 1))] == [
        5,
        9,
        9,
        13,
        14,
    ]
    assert growing.total("other", 1, 2) == 2
