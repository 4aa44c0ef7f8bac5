"""Very many drawn conversations, most of them as they may be: ours and h2 see the same, wherever the bytes are cut."""

import h2.exceptions
import pytest
from support.http2_oracle import compare, told_at_cuts
from support.http2_scripts import Peer

EXAMPLES = 22_000
PARTS = 4


@pytest.mark.parametrize("client", [False, True], ids=["server", "client"])
@pytest.mark.parametrize("part", range(PARTS))
def test_what_ours_accepts_is_seen_alike_by_the_oracle(part: int, client: bool) -> None:
    accepted = 0
    for seed in range(part, EXAMPLES // 2, PARTS):
        peer = Peer(seed, server=client)
        steps = peer.steps()
        try:
            accepted += compare(steps, client=client)
        except (AssertionError, h2.exceptions.H2Error, ValueError) as exc:
            raise AssertionError(f"seed {seed}: {steps}") from exc
        size = sum(len(step) for step in steps if isinstance(step, bytes))
        whole = told_at_cuts(steps, [], client=client)
        if seed % 400 == part:
            for cut in range(min(size, 400)):
                assert told_at_cuts(steps, [cut], client=client) == whole, f"seed {seed}, cut at {cut}"
        else:
            cuts = sorted(peer.draw.randrange(size + 1) for _ in range(2))
            assert told_at_cuts(steps, cuts, client=client) == whole, f"seed {seed}, cuts at {cuts}"
    assert accepted > EXAMPLES // 2 // PARTS // 8
