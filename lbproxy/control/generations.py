"""The generations that a pool has had, so that `rollback` can bring one back: the last few besides the one that serves.

Knows values only. A generation that repeats an older one (the same settings, directory and environment) counts as that
one: deploys into the same directory do not push the older releases out.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from lbproxy.address import Address
from lbproxy.errors import LbproxyError
from lbproxy.model import Generation
from lbproxy.settings import Secret


class UnknownGeneration(LbproxyError):
    """No such generation is kept, or it cannot come back."""


@dataclass(frozen=True, slots=True)
class Kept:
    """`numbers`: all that this generation has had, the oldest first."""

    generation: Generation
    numbers: tuple[int, ...]


class Generations:
    def __init__(self) -> None:
        self._kept: dict[str, list[Kept]] = {}  # by pool, the newest last
        self._serving: dict[str, Kept] = {}

    def served(self, generation: Generation) -> None:
        """It serves now; the one that served before is kept."""
        pool = generation.settings.name
        before = self._serving.get(pool)
        if before is not None and before.generation.number == generation.number:
            self._serving[pool] = Kept(generation, before.numbers)
            return
        kept = self._kept.setdefault(pool, [])
        if before is not None:
            kept.append(before)
        numbers: tuple[int, ...] = (generation.number,)
        for one in kept:
            if is_same(one.generation, generation):
                numbers = (*one.numbers, *numbers)
        kept[:] = [one for one in kept if not is_same(one.generation, generation)]
        del kept[: max(0, len(kept) - generation.settings.reload.keep)]
        self._serving[pool] = Kept(generation, numbers)

    def number_of(self, generation: Generation) -> int | None:
        """Its number, if it is the one that serves, or has served last before a restart; its own number is not used."""
        serving = self._serving.get(generation.settings.name)
        if serving is None or not is_same(serving.generation, generation):
            return None
        return serving.generation.number

    def forget(self, pool: str) -> None:
        self._kept.pop(pool, None)
        self._serving.pop(pool, None)

    def find(self, pool: str, number: int | None) -> Kept:
        """The kept generation with this number; the newest one without. Raises UnknownGeneration."""
        kept, serving = self._kept.get(pool, []), self._serving.get(pool)
        if number is None:
            found = kept[-1] if kept else None
        else:
            every = [*kept, *([serving] if serving is not None else [])]
            found = next((one for one in every if number in one.numbers), None)
        if found is None:
            there = ", ".join(str(one.numbers[-1]) for one in kept) or "none besides the one that serves"
            what = f"no generation of {pool} to go back to"
            if number is not None:
                what = f"generation {number} of {pool} is not kept"
            raise UnknownGeneration(f"{what} (kept: {there})")
        if not os.path.isdir(found.generation.directory):
            which = f"generation {found.numbers[-1]} of {pool}"
            raise UnknownGeneration(f"{which} cannot come back: {found.generation.directory} does not exist")
        return found

    def numbers(self, pool: str) -> list[int]:
        """Of the kept ones, the newest last."""
        return [one.numbers[-1] for one in self._kept.get(pool, [])]

    def kept(self) -> Iterator[Kept]:
        """All of them, those that serve behind the others of their pool: `restore` takes them."""
        for pool, serving in self._serving.items():
            yield from self._kept.get(pool, [])
            yield serving

    def restore(self, kept: list[Kept]) -> None:
        """Take over what an earlier control kept."""
        for one in kept:
            pool = one.generation.settings.name
            before = self._serving.get(pool)
            if before is not None:
                self._kept.setdefault(pool, []).append(before)
            self._serving[pool] = one


def is_same(one: Generation, other: Generation) -> bool:
    return replace(one, number=other.number) == other


def differing_keys(one: Generation, other: Generation) -> tuple[str, ...]:
    """The keys of the file (`size`, `drain.websocket`) in which two generations of a pool differ."""
    keys = [*differing(one.settings, other.settings)]
    if one.directory != other.directory and "directory" not in keys:
        keys.append("directory")
    if one.env != other.env and not {"env", "env_file"} & set(keys):
        keys.append("env_file")  # the same file has another content
    return tuple(keys)


def differing(one: Any, other: Any, path: str = "") -> tuple[str, ...]:
    """The keys in which two values of settings.py differ, as the file has them; `path` stands before each."""
    return tuple(dict.fromkeys(_differing(one, other, path)))


def _differing(one: Any, other: Any, path: str) -> Iterator[str]:
    for field in fields(one):
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        if mine == theirs:
            continue
        key = path + _IN_FILE.get(field.name, field.name.removesuffix("_s"))
        if is_dataclass(mine) and type(mine) is type(theirs) and not isinstance(mine, Address | Secret):
            yield from _differing(mine, theirs, f"{key}.")
        else:
            yield key


# Fields that have another name in the file than without their unit.
_IN_FILE = {
    "at_most_percent": "at_most",
    "max_surge_is_percent": "max_surge",
    "buffer_request_bytes": "buffer_request",
    "retry_attempts": "retry.attempts",
    "authorities": "ca",
    "queue_size": "queue.size",
    "queue_timeout_s": "queue.timeout",
    "backoff_first_s": "backoff.first",
    "backoff_max_s": "backoff.max",
    "give_up_crashes": "give_up.crashes",
    "give_up_within_s": "give_up.within",
    "max_memory_bytes": "max_memory",
}
