"""What every table of the file is, and the words for when a changed key takes effect."""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

# When a changed key takes effect.
LIVE = "at every reload; with --config-only without new backends"
REPLACES = "at every reload; with --config-only, too, new backends replace the old ones"
WHOLE = "at every reload of the whole file (one that names no pool); with --config-only without new backends"
NEXT_START = "at the next start of lbproxy"


class Table(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        alias_generator=lambda name: name.removesuffix("_s"),
        use_attribute_docstrings=True,
    )

    applies: ClassVar[str] = LIVE

    def given(self) -> dict[str, Any]:
        """The values of the file, by the names of settings.py."""
        return {name: getattr(self, name) for name in self.model_fields_set}
