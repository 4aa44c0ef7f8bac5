import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.config.units import duration, duration_text, positive_duration, size, size_text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("30s", 30), ("5m", 300), ("1h", 3600), ("2d", 172_800), ("1.5s", 1.5), ("0s", 0)],
)
def test_a_duration_is_a_number_with_a_unit(text: str, seconds: float):
    assert duration(text) == seconds


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (30, 'expected a duration such as "30s", got 30 (write "30s")'),
        (0.5, 'expected a duration such as "30s", got 0.5 (write "0.5s")'),
        ("30", 'expected a duration such as "30s", got \'30\' (write "30s")'),
        ("5 min", 'expected a duration such as "30s", got \'5 min\' (write "5m")'),
        ("250MS", 'expected a duration such as "30s", got \'250MS\' (write "250ms")'),
        ("30 s", 'expected a duration such as "30s", got \'30 s\' (write "30s")'),
        ("3 moons", "expected a duration such as \"30s\", got '3 moons'"),
        ("", "expected a duration such as \"30s\", got ''"),
        ("s", "expected a duration such as \"30s\", got 's'"),
        ("-1s", "expected a duration such as \"30s\", got '-1s'"),
        ("1m30s", "expected a duration such as \"30s\", got '1m30s'"),
        ("\u0661s", "expected a duration such as \"30s\", got '\u0661s'"),
        (-5, 'expected a duration such as "30s", got -5'),
        (float("nan"), 'expected a duration such as "30s", got nan'),
        (1e-9, 'expected a duration such as "30s", got 1e-09'),
        (True, 'expected a duration such as "30s", got true'),
        ([], 'expected a duration such as "30s", got a list'),
        ("99999999h", "expected at most ten years, got '99999999h'"),
    ],
)
def test_a_wrong_duration_is_told_how_to_be_written(value: object, message: str):
    with pytest.raises(ValueError) as caught:
        duration(value)
    assert str(caught.value) == message


def test_a_timeout_of_zero_is_refused():
    assert positive_duration("1ms") == 0.001
    with pytest.raises(ValueError, match="expected more than zero, got '0s'"):
        positive_duration("0s")


@pytest.mark.parametrize(
    ("text", "count"),
    [("16KiB", 16_384), ("1MB", 1_000_000), ("0", 0), ("512", 512), ("512B", 512), ("1.5KiB", 1536), ("1TB", 10**12)],
)
def test_a_size_is_a_number_with_a_unit_or_of_bytes(text: str, count: int):
    assert size(text) == count


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (16_384, 'expected a size such as "16KiB", got 16384 (write "16KiB")'),
        (1_000_000, 'expected a size such as "16KiB", got 1000000 (write "1MB")'),
        (1234, 'expected a size such as "16KiB", got 1234 (write "1234")'),
        (0, 'expected a size such as "16KiB", got 0 (write "0")'),
        ("16k", 'expected a size such as "16KiB", got \'16k\' (write "16KiB")'),
        ("16 kib", 'expected a size such as "16KiB", got \'16 kib\' (write "16KiB")'),
        ("much", "expected a size such as \"16KiB\", got 'much'"),
        ("-1B", "expected a size such as \"16KiB\", got '-1B'"),
        (-1, 'expected a size such as "16KiB", got -1'),
        (True, 'expected a size such as "16KiB", got true'),
        (1.5, 'expected a size such as "16KiB", got 1.5'),
    ],
)
def test_a_wrong_size_is_told_how_to_be_written(value: object, message: str):
    with pytest.raises(ValueError) as caught:
        size(value)
    assert str(caught.value) == message


@given(st.integers(0, 10**14))
def test_the_spelling_that_is_advised_means_the_same(count: int):
    with pytest.raises(ValueError) as caught:
        size(count)
    assert size(str(caught.value).rpartition('(write "')[2].removesuffix('")')) == count


@given(st.text() | st.integers() | st.floats() | st.booleans() | st.none() | st.lists(st.integers()))
def test_anything_else_is_a_value_error(value: object):
    for read in (duration, positive_duration, size):
        with contextlib.suppress(ValueError):
            assert read(value) >= 0


@pytest.mark.parametrize("text", ["0s", "250ms", "0.5ms", "1.5s", "60s", "75s", "15m", "1h", "7d"])
def test_a_duration_is_written_as_usual(text: str):
    assert duration_text(duration(text)) == text


@given(st.integers(0, 10**9))
def test_what_is_written_is_read_again(number: int):
    assert duration(duration_text(number / 1000)) == pytest.approx(number / 1000)
    assert size(size_text(number)) == number
