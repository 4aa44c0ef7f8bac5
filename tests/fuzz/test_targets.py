"""The fuzzer's targets hold for their seeds and for a few bent ones; the fuzzer itself is a command (run.py)."""

import random

import pytest

from fuzz.targets import TARGETS, seeds


@pytest.mark.parametrize("name", TARGETS)
def test_the_seeds_break_nothing(name: str) -> None:
    for seed in seeds(name):
        TARGETS[name](seed)


@pytest.mark.parametrize("name", TARGETS)
def test_bent_seeds_break_nothing(name: str) -> None:
    draw = random.Random(name)
    begin = seeds(name)
    for _ in range(40 if name == "pump" else 400):
        raw = bytearray(draw.choice(begin))
        for _ in range(draw.randint(1, 3)):
            at = draw.randrange(len(raw) + 1)
            raw[at : at + draw.randint(0, 2)] = draw.choice(
                (b"", b"\r", b"\n", b"\r\n", b" ", b"\x00", b"\xff", b":", b"0")
            )
        TARGETS[name](bytes(raw))
