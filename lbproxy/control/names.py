"""The host names of targets, and the addresses that they had last.

A value that resolver.py fills and pools read. Looks nothing up.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from lbproxy.address import Address
from lbproxy.settings import PoolSettings

Name = tuple[str, int]  # with the port: of the loopback addresses of a name the one that answers there is used


@dataclass(slots=True)
class Names:
    """`found`: a name that was never resolved is absent."""

    found: dict[Name, tuple[str, ...]] = field(default_factory=dict)

    def expand(self, targets: Iterable[Address]) -> tuple[Address, ...]:
        """The targets with the addresses of each name in its place."""
        expanded: list[Address] = []
        for target in targets:
            if not target.has_name:
                expanded.append(target)
            else:
                hosts = self.found.get(name_of(target), ())
                expanded += [replace(target, host=host, name=target.host) for host in hosts]
        return tuple(dict.fromkeys(expanded))

    def missing(self, targets: Iterable[Address]) -> int:
        """How many names were never resolved."""
        return sum(target.has_name and name_of(target) not in self.found for target in targets)

    def gone(self, present: Iterable[Address], targets: Sequence[Address]) -> list[Address]:
        """Those of `present` that are in none of the targets any more.

        While a name is missing, only other addresses of names that are known go: the missing one may be the successor
        of all others.
        """
        wanted = self.expand(targets)
        known = {name_of(target) for target in targets if target.has_name}
        is_missing = self.missing(targets) > 0
        return [one for one in present if one not in wanted and (not is_missing or name_of(one) in known)]

    def size(self, settings: PoolSettings) -> int:
        """How many backends the pool should have; one for each name that is missing."""
        if settings.command is not None:
            return settings.size
        return len(self.expand(settings.targets)) + self.missing(settings.targets)


def name_of(target: Address) -> Name:
    return target.server_name, target.port


def names_of(pools: Iterable[PoolSettings]) -> set[Name]:
    """The names in the targets of these pools."""
    return {name_of(target) for pool in pools for target in pool.targets if target.has_name}
