"""What every table of the file is, and the words for when a changed key takes effect."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict
from pydantic_core import CoreSchema, core_schema

# When a changed key takes effect.
LIVE = "at every reload; with --config-only without new backends"
REPLACES = "at every reload; with --config-only, too, new backends replace the old ones"
WHOLE = "at every reload of the whole file (one that names no pool); with --config-only without new backends"
NEXT_START = "at the next start of lbproxy"


@dataclass(frozen=True, slots=True)
class Read:
    """A type's annotation: this function reads the value. PlainValidator would have pydantic make a schema of the type
    itself, too, which nothing uses: 10 ms at every start."""

    read: Callable[[Any], Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.read)


class Table(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        alias_generator=lambda name: name.removesuffix("_s"),
        defer_build=True,  # only the whole document is ever validated, and it contains the validators of the others
    )

    applies: ClassVar[str] = LIVE

    def given(self) -> dict[str, Any]:
        """The values of the file, by the names of settings.py."""
        return {name: getattr(self, name) for name in self.model_fields_set}
