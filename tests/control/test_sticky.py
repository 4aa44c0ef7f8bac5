"""Tokens of sticky cookies: the same for the same slot, as long as the key is; no key, no token."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from support.trio_test import trio_test

from control.fakes import World, made_of, pool_settings, settings_of
from lbproxy.address import Address
from lbproxy.control.plan import Plan
from lbproxy.control.reload import Reload
from lbproxy.control.sticky import FILE, StickyTokens, stuck_to
from lbproxy.model import BackendSpec, Generation
from lbproxy.settings import ReloadSettings, Secret, Settings, StickySettings
from lbproxy.telemetry.events import Event


def spec(slot: int, pool: str = "web", generation: int = 1) -> BackendSpec:
    return BackendSpec(slot, Generation(generation, replace(pool_settings(), name=pool), "/", ()))


@pytest.fixture
def said() -> list[Event]:
    return []


def test_a_token_is_that_of_a_slot_in_every_generation_and_after_a_restart(tmp_path: Path, said: list[Event]) -> None:
    tokens = StickyTokens(str(tmp_path), said.append)
    made = [tokens.token(spec(slot)) for slot in (1, 2, 3)]
    assert len(set(made)) == 3
    assert [tokens.token(spec(slot, generation=7)) for slot in (1, 2, 3)] == made
    again = StickyTokens(str(tmp_path), said.append)
    assert [again.token(spec(slot)) for slot in (1, 2, 3)] == made
    assert said == []


def test_pools_do_not_share_tokens_and_a_token_tells_nothing(tmp_path: Path, said: list[Event]) -> None:
    tokens = StickyTokens(str(tmp_path), said.append)
    made = [tokens.token(spec(1, pool)) for pool in ("web", "api")]
    assert made[0] != made[1]
    assert all(len(token) == 22 and token.replace("-", "a").replace("_", "a").isalnum() for token in made)
    assert not any(word in token for token in made for word in ("web", "api"))


def test_the_key_is_nobody_elses_to_read(tmp_path: Path, said: list[Event]) -> None:
    directory = tmp_path / "state"
    StickyTokens(str(directory), said.append).token(spec(1))
    assert (directory / FILE).stat().st_mode & 0o777 == 0o600
    assert directory.stat().st_mode & 0o777 == 0o700
    assert os.listdir(directory) == [FILE]


def test_no_key_is_made_where_the_file_gives_one(tmp_path: Path, said: list[Event]) -> None:
    tokens = [StickyTokens(str(tmp_path / name), said.append) for name in ("a", "b")]
    for one in tokens:
        one.use([("web", Secret("sesame", "STICKY_KEY"))])
    assert tokens[0].token(spec(1)) == tokens[1].token(spec(1))
    assert list(tmp_path.iterdir()) == []
    before = tokens[0].token(spec(1))
    tokens[0].use([("web", Secret("another"))])
    assert tokens[0].token(spec(1)) != before
    tokens[0].use([])
    assert tokens[0].token(spec(1)) not in (before, "")


@pytest.mark.parametrize("content", [b"", b"abc", b"zz" * 32, b"\xff" * 64, b"ab" * 31, b"ab" * 500])
def test_a_key_that_makes_no_sense_is_said_and_made_anew(tmp_path: Path, said: list[Event], content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    token = StickyTokens(str(tmp_path), said.append).token(spec(1))
    assert len(said) == 1
    assert FILE in str(said[0])
    assert StickyTokens(str(tmp_path), said.append).token(spec(1)) == token


def test_without_a_place_for_its_key_it_works_until_the_end(tmp_path: Path, said: list[Event]) -> None:
    assert StickyTokens(None, said.append).token(spec(1))
    assert said == []
    (tmp_path / "file").write_text("")
    tokens = StickyTokens(str(tmp_path / "file"), said.append)
    assert tokens.token(spec(1)) == tokens.token(spec(1))
    assert said


def test_a_client_sticks_to_the_address_of_a_target_wherever_it_stands() -> None:
    one, two = Address("10.0.0.1", 80), Address("10.0.0.2", 80)

    def placed(slot: int, *targets: Address) -> str:
        settings = replace(pool_settings(), command=None, targets=targets)
        return stuck_to(BackendSpec(slot, Generation(1, settings, "/", ())))

    assert placed(1, one, two) == placed(2, two, one) != placed(2, one, two)


changes = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 5), st.booleans()), min_size=1, max_size=4)


@hypothesis_settings(max_examples=25)
@given(st.integers(1, 4), changes)
def test_over_any_row_of_reloads_and_scales_no_slot_is_missing_and_its_token_stays(
    size: int, row: list[tuple[int, int, bool]]
) -> None:
    """`row`: the pool's new size, the surge, and whether only the difference is made."""

    def sized(size: int, surge: int = 1) -> Settings:
        reload = ReloadSettings(surge, min_ready_s=0.1)
        return settings_of(pool_settings(size=size, sticky=StickySettings(), reload=reload))

    async def run() -> None:
        tokens = StickyTokens(None, lambda event: None)
        world = World(sized(size))
        world.fleet._context = replace(world.fleet.context, token_of=tokens.token)
        present = size
        async with world.running():
            for number, (wanted, surge, config_only) in enumerate(row):
                published = len(world.workers.tables)
                settings = sized(wanted, surge)
                plan = Plan(f"r{number}", "command", settings, made_of(settings), whole=True, config_only=config_only)
                await Reload(world.context, plan).run()
                for table in world.workers.tables[published:]:
                    views = table.pools[0].backends
                    assert {view.id.slot for view in views} >= set(range(1, min(present, wanted) + 1))
                    assert all(view.token == tokens.token(spec(view.id.slot)) for view in views)
                present = wanted

    trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))


@trio_test(clock="autojump")
async def test_the_table_says_which_slots_are_in_their_first_start() -> None:
    tokens = StickyTokens(None, lambda event: None)
    world = World(settings_of(pool_settings(size=2, sticky=StickySettings())))
    world.fleet._context = replace(world.fleet.context, token_of=tokens.token)
    async with world.running():
        both = (tokens.token(spec(1)), tokens.token(spec(2)))
        assert world.workers.tables[0].pools[0].coming == both
        assert world.workers.tables[-1].pools[0].coming == ()
        world.member("web.1@1").runner.die()
        await trio.sleep(1.0)
        assert all(table.pools[0].coming == () for table in world.workers.tables[-2:])
