"""The difference between a pool and its new settings: which backends come, which leave, which stay.

Plain functions. They start and publish nothing.
"""

from collections.abc import Callable
from dataclasses import replace

from lbproxy.address import Address
from lbproxy.control.pool import Member, Pool, lowest_free
from lbproxy.control.rollout import Change
from lbproxy.model import BackendSpec, Generation, State
from lbproxy.policy import rollout

Diff = tuple[Generation, Change[Member]]


def diff(pool: Pool, wanted: Generation, number: Callable[[], int], *, config_only: bool) -> Diff:
    """The generation that serves after the change, and the change.

    `wanted` has the new settings; its number is not used. `number()` gives the number of a new generation.
    """
    if wanted.settings.command is None:
        return _retarget(pool, wanted, number)
    surge = rollout.surge(wanted.settings.reload, wanted.settings.size)
    slots = range(1, wanted.settings.size + 1)
    if not (config_only and is_same_making(pool.generation, wanted)):
        fresh = replace(wanted, number=number())
        return fresh, Change(tuple(BackendSpec(slot, fresh) for slot in slots), tuple(pool.members), surge=surge)
    same = replace(pool.generation, settings=wanted.settings)
    keep = tuple(
        member
        for member in pool.members
        if member.spec.generation.number == same.number and member.spec.slot <= wanted.settings.size
    )
    if all(member.held for member in keep) and not all(member.held for member in pool.members):
        keep = ()  # only drained backends would be left, and nothing would serve
    taken = {member.spec.slot for member in keep}
    make = tuple(BackendSpec(slot, same) for slot in slots if slot not in taken)
    return same, Change(make, tuple(member for member in pool.members if member not in keep), keep, surge)


def one_slot(pool: Pool, slot: int) -> Diff:
    """The change that replaces one backend by another of its generation, with all others left alone."""
    leave = tuple(member for member in pool.members if member.spec.slot == slot)
    keep = tuple(member for member in pool.members if member not in leave)
    return pool.generation, Change((BackendSpec(slot, pool.generation),), leave, keep)


def is_same_making(one: Generation, other: Generation) -> bool:
    """Whether both generations would start the same backends. All other settings apply without a restart."""
    return not making_keys(one, other)


def making_keys(one: Generation, other: Generation) -> tuple[str, ...]:
    """The keys of the file because of which two generations would not start the same backends."""
    mine, theirs = _making(one), _making(other)
    keys = [key for key in mine if mine[key] != theirs[key]]
    if "env" in keys and one.settings.env == other.settings.env:
        keys[keys.index("env")] = "env_file"
    return tuple(keys)


def _making(generation: Generation) -> dict[str, object]:
    settings = generation.settings
    return {
        "command": settings.command,
        "user": settings.user,
        "bind": settings.bind,
        "protocol": settings.protocol,
        "directory": generation.directory,
        "env": generation.env,
    }


def _retarget(pool: Pool, wanted: Generation, number: Callable[[], int]) -> Diff:
    """The change of a pool with fixed addresses. An address that stays in the list keeps its backend."""
    by_address: dict[Address, Member] = {}
    staying = [member for member in pool.members if not is_leaving(member)]
    stale = tuple(member for member in staying if _is_stale(member, wanted))
    for member in staying:
        address = target_of(member.spec)
        if address is not None and member not in stale:
            by_address.setdefault(address, member)
    targets = pool.names.expand(wanted.settings.targets)
    keep = tuple(by_address[address] for address in targets if address in by_address)
    leave = (*stale, *(member for member in gone(pool, wanted.settings.targets) if member not in stale))
    keep += tuple(member for member in staying if member not in keep and member not in leave)
    come = [address for address in targets if address not in by_address]
    if not come and not leave:
        return replace(pool.generation, settings=wanted.settings), Change((), (), keep)
    slots = lowest_free((member.spec.slot for member in keep), len(come))
    fresh = replace(wanted, number=number())
    placed = placed_at(fresh, dict(zip(slots, come, strict=True)))
    surge = rollout.surge(wanted.settings.reload, wanted.settings.size)
    return fresh, Change(tuple(BackendSpec(slot, placed) for slot in slots), leave, keep, surge)


def target_of(spec: BackendSpec) -> Address | None:
    """The fixed address of a backend; None for one that runs a command."""
    settings = spec.generation.settings
    return settings.targets[spec.slot - 1] if settings.command is None else None


def _is_stale(member: Member, wanted: Generation) -> bool:
    """Whether the protocol or the rules for certificates have changed: then a new backend has to prove itself."""
    address, settings = target_of(member.spec), member.spec.generation.settings
    secure = address is not None and address.secure
    return settings.protocol != wanted.settings.protocol or (secure and settings.tls != wanted.settings.tls)


def gone(pool: Pool, targets: tuple[Address, ...]) -> tuple[Member, ...]:
    """The members that are in none of these targets, but for those that a name which is missing may replace."""
    staying = [(member, target_of(member.spec)) for member in pool.members if not is_leaving(member)]
    left = pool.names.gone([address for _, address in staying if address is not None], targets)
    is_missing = pool.names.missing(targets) > 0
    return tuple(member for member, address in staying if (not is_missing if address is None else address in left))


def is_leaving(member: Member) -> bool:
    """Whether it is being drained or stopped for good: the task that has begun this will end it."""
    return member.backend.state in (State.DRAINING, State.STOPPING)


def placed_at(generation: Generation, targets: dict[int, Address]) -> Generation:
    """The generation with its addresses in the places of their slots: addresses that stay keep theirs."""
    if not targets:
        return generation
    some = next(iter(targets.values()))  # what stands in a place that no backend of this generation has
    row = tuple(targets.get(slot, some) for slot in range(1, max(targets) + 1))
    return replace(generation, settings=replace(generation.settings, targets=row))
