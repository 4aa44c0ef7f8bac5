"""Very many drawn conversations, most of them as they may be: ours and h2 see the same, wherever the bytes are cut."""

import h2.exceptions
import pytest
from support.http2_oracle import compare, told_at_cuts
from support.http2_scripts import Peer

EXAMPLES = 22_000
PARTS = 4


def check(seed: int, *, client: bool, every_cut: bool) -> bool:
    """Whether everything of the conversation was accepted."""
    peer = Peer(seed, server=client)
    steps = peer.steps()
    try:
        accepted = compare(steps, client=client)
    except (AssertionError, h2.exceptions.H2Error, ValueError) as exc:
        raise AssertionError(f"seed {seed}: {steps}") from exc
    size = sum(len(step) for step in steps if isinstance(step, bytes))
    if every_cut:
        cuts = [[cut] for cut in range(size)]
    elif seed % 3:
        cuts = []
    else:
        cuts = [sorted(peer.draw.randrange(size + 1) for _ in range(2))]
    whole = told_at_cuts(steps, [], client=client) if cuts else None
    for cut in cuts:
        assert told_at_cuts(steps, cut, client=client) == whole, f"seed {seed}, cut at {cut}"
    return accepted


@pytest.mark.parametrize("client", [False, True], ids=["server", "client"])
@pytest.mark.parametrize("part", range(PARTS))
def test_what_ours_accepts_is_seen_alike_by_the_oracle(part: int, client: bool) -> None:
    seeds = range(part, EXAMPLES // 2, PARTS)
    accepted = sum(check(seed, client=client, every_cut=seed % 500 == part) for seed in seeds)
    assert accepted > len(seeds) // 8


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("client", [False, True], ids=["server", "client"])
def test_what_ours_accepts_of_very_many_is_seen_alike_by_the_oracle(client: bool) -> None:
    for seed in range(1_000_000, 1_300_000):
        check(seed, client=client, every_cut=seed % 1000 == 0)
