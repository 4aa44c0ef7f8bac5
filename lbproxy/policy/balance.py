"""Balancing: choose the backend of the next lease.

Plain functions over the candidates of one pool: the backends in the table that were not tried yet and are below their
limit. Does not know tables or leases: loads, turns and dice are arguments.

Hot: runs once per request. Plain loops and ints; `min(candidates, key=...)` costs twice as much. With four candidates
about 0.5 us (hash: 1.5), without the cost of `load`.
"""

from collections.abc import Callable, Sequence
from zlib import crc32

from lbproxy.model import BackendView

_ROUNDS = 16
_GOLDEN = 0x9E3779B1  # 2**32 divided by the golden ratio: its multiples fill the circle evenly
_MASK = 0xFFFFFFFF


def pick(
    balance: str,
    candidates: Sequence[BackendView],
    load: Callable[[int], float],
    turn: int,
    key: bytes | None,
    *,
    draw: Callable[[], float],
) -> BackendView:
    """Choose among `candidates`, of which there is at least one.

    `load` gives the leases on a cell, over all workers, or their weight (slow_start.py). `turn` grows by one with every
    pick of this pool. `key` is the value for `hash`; without one (None) the least loaded backend is taken. `draw` gives
    numbers in [0, 1).
    """
    if len(candidates) == 1:
        return candidates[0]
    if balance == "least_conn":
        return least_conn(candidates, load, turn)
    if balance == "round_robin":
        return round_robin(candidates, turn)
    if balance == "random_two":
        return random_two(candidates, load, draw)
    if balance == "hash":
        return least_conn(candidates, load, turn) if key is None else rendezvous(candidates, key)
    raise ValueError(f"unknown balance {balance!r}")


def least_conn(candidates: Sequence[BackendView], load: Callable[[int], float], turn: int) -> BackendView:
    """The backend with the fewest leases. Backends that tie take turns among themselves."""
    # Starting the search at `turn` would be shorter, but a backend behind busy ones would get their turns as well.
    tied: list[BackendView] = []
    least: float = -1
    for candidate in candidates:
        leases = load(candidate.cell)
        if leases == least:
            tied.append(candidate)
        elif leases < least or least < 0:
            least = leases
            tied = [candidate]
    return tied[0] if len(tied) == 1 else round_robin(tied, turn)


def round_robin(candidates: Sequence[BackendView], turn: int) -> BackendView:
    """Each backend in its turn: exactly even while the candidates stay the same, and even in the long run otherwise."""
    # `turn % count` alone goes wrong when the candidates change in step with the turns: if one of two is missing at
    # every other turn, the same backend always comes next. So the rotation is shifted a little after every 16 rounds.
    count = len(candidates)
    shift = (turn // (count * _ROUNDS) * _GOLDEN & _MASK) * count >> 32
    return candidates[(turn + shift) % count]


def random_two(
    candidates: Sequence[BackendView], load: Callable[[int], float], draw: Callable[[], float]
) -> BackendView:
    """The less loaded of two different backends drawn at random."""
    count = len(candidates)
    if count == 1:
        return candidates[0]
    first = int(draw() * count)
    second = int(draw() * (count - 1))
    if second >= first:
        second += 1
    one, other = candidates[first], candidates[second]
    return other if load(other.cell) < load(one.cell) else one


def rendezvous(candidates: Sequence[BackendView], key: bytes) -> BackendView:
    """The same slot for the same key, in every worker and every generation; a slot that leaves moves only its own keys.

    Each slot scores the key and the highest score wins (highest random weight). During a reload a slot may be a
    candidate in two generations: the newer one wins.
    """
    # crc32 is linear: a score of key and slot together would rank the slots alike for most keys. So the key is hashed
    # once, and key and slot are mixed by multiplication (Murmur's finaliser). hash() differs between processes.
    hashed = crc32(key)
    best = candidates[0]
    highest = -1
    for candidate in candidates:
        slot = candidate.id.slot
        score = (hashed ^ slot * _GOLDEN & _MASK) * 0x85EBCA6B & _MASK
        score = (score ^ score >> 13) * 0xC2B2AE35 & _MASK
        score ^= score >> 16
        if score > highest or (score == highest and candidate.id.generation > best.id.generation):
            highest = score
            best = candidate
    return best
