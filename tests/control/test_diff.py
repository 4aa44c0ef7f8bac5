"""What a reload means for one pool, as values."""

import pytest
import trio

from control.fakes import World, made_of, pool_settings, settings_of
from lbproxy.address import Address
from lbproxy.control.diff import diff, is_same_making, making_keys, target_of
from lbproxy.model import BackendSpec, Generation
from lbproxy.settings import HealthSettings, TargetTls

ONE, TWO, THREE = (Address("10.0.0.1", port) for port in (1, 2, 3))


def decided(before, after, *, config_only, drained=()):
    """Slots made, slots replaced, slots kept, the number of the generation."""
    found = []

    async def main():
        world = World(settings_of(before))
        async with world.running():
            pool = world.fleet.pools["web"]
            for member in pool.members:
                member.held = member.spec.slot in drained
            (wanted,) = made_of(settings_of(after))
            found.append(diff(pool, wanted, lambda: 2, config_only=config_only))

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    ((generation, change),) = found
    slots = [[one.slot for one in change.make]]
    slots += [sorted(member.spec.slot for member in group) for group in (change.replace, change.keep)]
    return (*slots, generation.number)


def test_a_plain_reload_replaces_every_backend():
    assert decided(pool_settings(), pool_settings(), config_only=False) == ([1, 2], [1, 2], [], 2)


def test_config_only_keeps_them_when_nothing_of_their_making_changed():
    after = pool_settings(health=HealthSettings(interval_s=1.0))
    assert decided(pool_settings(), after, config_only=True) == ([], [], [1, 2], 1)


def test_config_only_with_another_size_makes_or_replaces_the_difference():
    assert decided(pool_settings(size=2), pool_settings(size=3), config_only=True) == ([3], [], [1, 2], 1)
    assert decided(pool_settings(size=3), pool_settings(size=1), config_only=True) == ([], [2, 3], [1], 1)


def test_a_pool_that_shrinks_to_its_drained_backends_gets_fresh_ones():
    three, one = pool_settings(size=3), pool_settings(size=1)
    assert decided(three, one, config_only=True, drained=(1,)) == ([1], [1, 2, 3], [], 1)
    assert decided(three, one, config_only=True, drained=(2,)) == ([], [2, 3], [1], 1)
    assert decided(three, pool_settings(size=2), config_only=True, drained=(1,)) == ([], [3], [1, 2], 1)
    assert decided(three, one, config_only=True, drained=(1, 2, 3)) == ([], [2, 3], [1], 1), "it was wanted so"
    assert decided(one, three, config_only=True, drained=(1,)) == ([2, 3], [], [1], 1)


def test_fixed_targets_keep_their_slots_and_new_ones_take_free_slots():
    before = pool_settings(command=None, targets=(ONE, TWO))
    after = pool_settings(command=None, targets=(TWO, THREE))
    assert decided(before, after, config_only=False) == ([1], [1], [2], 2)
    assert decided(before, before, config_only=False) == ([], [], [1, 2], 1)


def test_https_targets_are_made_anew_when_other_rules_verify_them():
    secure = Address("10.0.0.1", 443, secure=True)
    before = pool_settings(command=None, targets=(ONE, secure), tls=TargetTls())
    after = pool_settings(command=None, targets=(ONE, secure), tls=TargetTls(server_name="a"))
    assert decided(before, after, config_only=True) == ([2], [2], [1], 2)
    assert decided(before, before, config_only=True) == ([], [], [1, 2], 1)


def test_a_pool_that_turns_to_fixed_targets_is_replaced_whole():
    after = pool_settings(command=None, targets=(ONE, TWO))
    assert decided(pool_settings(), after, config_only=True) == ([1, 2], [1, 2], [], 2)
    assert decided(after, pool_settings(), config_only=True) == ([1, 2], [1, 2], [], 2)


@pytest.mark.parametrize(
    "change",
    [
        {"settings": {"command": ("other",)}},
        {"settings": {"user": "nobody"}},
        {"settings": {"bind": "unix"}},
        {"directory": "/app/releases/2"},
        {"env": (("A", "1"),)},
        {"settings": {"protocol": "h2c"}},
    ],
)
def test_what_a_backend_is_made_from_decides(change):
    def making(settings=None, directory="/app", env=()):
        return Generation(1, pool_settings(**(settings or {})), directory, env)

    assert is_same_making(making(), making())
    assert not is_same_making(making(), making(**change))
    (key,) = change.get("settings", change)
    assert making_keys(making(), making(**change)) == ("env_file" if key == "env" else key,)


def test_an_environment_in_the_file_is_told_from_another_content_of_the_env_file():
    plain = Generation(1, pool_settings(), "/app", ())
    given = Generation(1, pool_settings(env=(("A", "1"),)), "/app", (("A", "1"),))
    assert making_keys(plain, given) == ("env",)


def test_only_fixed_targets_have_an_address_beforehand():
    fixed = Generation(1, pool_settings(command=None, targets=(ONE, TWO)), "/", ())
    assert target_of(BackendSpec(2, fixed)) == TWO
    assert target_of(BackendSpec(2, Generation(1, pool_settings(), "/", ()))) is None
