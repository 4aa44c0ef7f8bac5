"""lbproxy/model.py: names of backends, and values that do not change."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy import model
from lbproxy.model import BackendId

IDS = st.builds(BackendId, st.from_regex(r"[a-z][a-z0-9_.@-]*", fullmatch=True), st.integers(1, 999), st.integers(1))


def test_a_backend_is_named_by_slot_and_generation() -> None:
    web = BackendId("web", 3, 7)
    assert (str(web), web.name) == ("web.3@7", "web.3")


@given(IDS)
def test_a_name_is_read_back_as_the_same_backend(backend: BackendId) -> None:
    assert BackendId.parse(str(backend)) == backend


@pytest.mark.parametrize("text", ["web", "web.3", "web@7", "web.x@7", ""])
def test_other_names_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        BackendId.parse(text)


def test_every_value_is_frozen_and_slotted() -> None:
    values = [kind for kind in vars(model).values() if dataclasses.is_dataclass(kind)]
    assert values
    for kind in values:
        assert "__slots__" in vars(kind), kind
        assert kind.__dataclass_params__.frozen, kind  # type: ignore[union-attr]
