"""Durations and sizes as the file writes them, to seconds and bytes. ValueError says how it should be written."""

import re

from lbproxy.config.problems import shown

_QUANTITY = re.compile(r"(\d{1,15}(?:\.\d{1,6})?) ?([A-Za-z]*)", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"B": 1, "kB": 10**3, "KB": 10**3, "KiB": 2**10, "MB": 10**6, "MiB": 2**20}
_BYTES |= {"GB": 10**9, "GiB": 2**30, "TB": 10**12, "TiB": 2**40}
_LONGEST_S = 3650 * 86400.0

# Spellings that are not accepted, and the unit that they mean.
_SAID_OTHERWISE = {
    "ms": ("msec", "msecs", "millis", "millisecond", "milliseconds"),
    "s": ("", "sec", "secs", "second", "seconds"),
    "m": ("min", "mins", "minute", "minutes"),
    "h": ("hr", "hrs", "hour", "hours"),
    "d": ("day", "days"),
}
_MEANT_DURATION = {word: unit for unit, words in _SAID_OTHERWISE.items() for word in (unit, *words)}
_MEANT_SIZE = {unit.lower(): unit for unit in _BYTES} | {"k": "KiB", "m": "MiB", "g": "GiB", "t": "TiB"}


def duration(value: object) -> float:
    """Seconds of "250ms", "30s", "1.5m", "1h"."""
    number, unit = _parts(value)
    if number + unit == value and unit in _SECONDS:
        seconds = float(number) * _SECONDS[unit]
        if seconds > _LONGEST_S:
            raise ValueError(f"expected at most ten years, got {shown(value)}")
        return seconds
    if not isinstance(value, str):
        number = _digits(value)
    meant = _MEANT_DURATION.get(unit.lower())
    raise _wrong('a duration such as "30s"', value, f"{number}{meant}" if number and meant else "")


def positive_duration(value: object) -> float:
    """A duration that must not be zero: with zero every operation would time out."""
    seconds = duration(value)
    if seconds <= 0:
        raise ValueError(f"expected more than zero, got {shown(value)}")
    return seconds


def size(value: object) -> int:
    """Bytes of "16KiB", "1MB", "512B", or "0"; digits alone are bytes."""
    number, unit = _parts(value)
    if number and number + unit == value and (not unit or unit in _BYTES):
        return round(float(number) * _BYTES[unit or "B"])
    if isinstance(value, int):
        raise _wrong('a size such as "16KiB"', value, size_text(value) if _digits(value) else "")
    meant = _MEANT_SIZE.get(unit.lower())
    raise _wrong('a size such as "16KiB"', value, f"{number}{meant}" if number and meant else "")


def _parts(value: object) -> tuple[str, str]:
    """("30", "sec") for "30 sec"; ("", "") for a value that is not a text with a number and a unit."""
    found = _QUANTITY.fullmatch(value) if isinstance(value, str) else None
    return (found[1], found[2]) if found is not None else ("", "")


def _digits(value: object) -> str:
    """A bare number of the file as these units could write it, else nothing."""
    text = str(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""
    return text if _QUANTITY.fullmatch(text) else ""


def duration_text(seconds: float) -> str:
    """The usual spelling of so many seconds: 0.25 is "250ms", 60 is "60s", 900 is "15m"."""
    for unit, least in (("d", 1), ("h", 1), ("m", 2), ("s", 1)):
        number = seconds / _SECONDS[unit]
        if number >= least and number == int(number):
            return f"{int(number)}{unit}"
    unit, number = ("s", seconds) if seconds >= 1 or seconds == 0 else ("ms", seconds / _SECONDS["ms"])
    return f"{number:.6f}".rstrip("0").rstrip(".") + unit


def size_text(value: int) -> str:
    """The shortest spelling of so many bytes: 16384 is "16KiB", 1000000 is "1MB"."""
    fitting = [unit for unit in ("GiB", "GB", "MiB", "MB", "KiB", "kB") if value and value % _BYTES[unit] == 0]
    return f"{value // _BYTES[fitting[0]]}{fitting[0]}" if fitting else str(value)


def _wrong(expected: str, value: object, better: str) -> ValueError:
    advice = f' (write "{better}")' if better else ""
    return ValueError(f"expected {expected}, got {shown(value)}{advice}")
