import datetime

import pytest

from lbproxy.config.problems import ConfigInvalid, Problem, dotted, header, nearest, shown, source_line


def test_the_report_is_in_the_order_of_the_file_and_ends_with_the_count():
    second = Problem("lb.toml", 12, 5, "two", "    x = 1")
    first = Problem("lb.toml", 3, 1, "one", "y = 1")
    assert ConfigInvalid([second, first]).text == (
        "lb.toml:3:1: error: one\n"
        "     3 | y = 1\n"
        "lb.toml:12:5: error: two\n"
        "    12 |     x = 1\n"
        "2 errors"
    )  # fmt: skip


def test_one_error_is_one_error():
    assert ConfigInvalid([Problem("lb.toml", 0, 0, "gone", "")]).text == "lb.toml: error: gone\n1 error"


def test_what_was_found_twice_is_said_once():
    assert len(ConfigInvalid([Problem("f", 1, 1, "m", "s")] * 2).problems) == 1


def test_a_source_line_cannot_steer_the_terminal():
    assert source_line("a\nb\x1b[31m\x9b\tc \r\n", 2) == "b\\x1b[31m\\x9b\tc"


def test_only_a_line_feed_ends_a_line():
    assert source_line("a\u2028b\x0bc\nd", 1) == "a\\u2028b\\x0bc"


def test_a_line_behind_the_end_is_empty():
    assert source_line("", 1) == source_line("a\n", 3) == ""


def test_a_long_line_is_cut():
    assert len(source_line("x" * 1000, 1)) == 161


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (4, "4"),
        (0.5, "0.5"),
        ("a", "'a'"),
        ([1], "a list"),
        ({}, "a table"),
        (datetime.date(2026, 1, 2), "2026-01-02"),
        ("x" * 100, "'" + "x" * 59 + "…"),
    ],
)
def test_values_are_quoted_as_the_file_has_them(value: object, text: str):
    assert shown(value) == text


def test_paths_leave_out_the_numbers_of_elements_and_quote_strange_keys():
    assert dotted(("listener", 0, "limits")) == "listener.limits"
    assert dotted(("pool", "a.b", 'q"')) == 'pool."a.b"."q\\""'


def test_tables_are_called_as_in_the_file():
    assert header(("pool", "web")) == "[pool.web]"
    assert header(("listener", 1)) == "[[listener]]"


def test_only_what_is_near_is_suggested():
    assert nearest("wokers", ["workers", "control"]) == " (did you mean 'workers'?)"
    assert nearest("zzz", ["workers", "control"]) == ""
