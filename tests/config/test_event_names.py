from fnmatch import fnmatchcase

import pytest

from lbproxy.config.event_names import EVENT_NAMES, event_pattern
from lbproxy.telemetry import events


def test_every_event_has_a_name_that_a_pattern_can_mean() -> None:
    names = [cls.name for cls in vars(events).values() if isinstance(cls, type) and getattr(cls, "name", "")]
    assert len(names) > 20
    assert [name for name in names if not any(fnmatchcase(name, known) for known in EVENT_NAMES)] == []


@pytest.mark.parametrize("text", ["reload.*", "backend.failed", "*", "notice", "cluster.lost", "*.failed"])
def test_a_pattern_means_some_event(text: str) -> None:
    assert event_pattern(text) == text


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("reloads.*", r"no event is called 'reloads\.\*' \(did you mean 'reload\.done'\?\)"),
        ("", "expected the name of an event"),
        (7, "expected the name of an event"),
    ],
)
def test_a_pattern_that_means_nothing_is_a_mistake(value: object, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        event_pattern(value)
