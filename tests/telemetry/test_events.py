import dataclasses

import pytest

from lbproxy.telemetry import events
from lbproxy.telemetry.events import Event

EVENTS = [cls for cls in vars(events).values() if isinstance(cls, type) and issubclass(cls, Event) and cls is not Event]


def test_every_event_has_a_name_of_its_own() -> None:
    names = [cls.name for cls in EVENTS]
    assert all(names)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("cls", EVENTS, ids=lambda cls: cls.name)
def test_an_event_is_a_frozen_value_with_a_level(cls: type[Event]) -> None:
    assert dataclasses.is_dataclass(cls)
    assert "__slots__" in vars(cls)
    assert vars(cls)["__dataclass_params__"].frozen
    assert cls.level in ("debug", "info", "warning", "error")


def test_what_belongs_to_a_reload_can_say_so() -> None:
    assert {cls.name for cls in EVENTS if cls.name.startswith("reload.")} <= {
        cls.name for cls in EVENTS if "reload" in {field.name for field in dataclasses.fields(cls)}
    }
