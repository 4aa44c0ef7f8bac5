from xml.etree import ElementTree

import pytest

from lbproxy.control.sparkline import HEIGHT, sparkline


def points(values, places=5):
    """The points of each line."""
    svg = ElementTree.fromstring(sparkline(values, "requests/s", places))
    lines = [line.get("points").split() for line in svg.findall("polyline")]
    return [[tuple(map(float, point.split(","))) for point in line] for line in lines]


def test_the_newest_value_stands_at_the_right_and_the_greatest_at_the_top():
    assert points([0.0, 10.0, 5.0]) == [[(2, HEIGHT - 1), (3, 1), (4, 10)]]


def test_zeros_are_a_line_at_the_bottom():
    assert points([0.0, 0.0]) == [[(3, HEIGHT - 1), (4, HEIGHT - 1)]]


def test_what_is_not_known_leaves_a_gap():
    assert [len(line) for line in points([1.0, 1.0, None, 1.0, 1.0])] == [2, 2]


@pytest.mark.parametrize("values", [[], [None], [1.0]])
def test_less_than_two_values_are_no_line(values):
    assert points(values) == []


def test_a_label_is_never_markup():
    svg = ElementTree.fromstring(sparkline([1.0, 2.0], '"><script>x</script>', 5))
    assert svg.get("aria-label") == '"><script>x</script>'
    assert [child.tag for child in svg] == ["title", "polyline"]
