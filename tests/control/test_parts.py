"""The parts that exist before Trio runs. What is taken over is tested with a real upgrade (e2e/test_upgrade.py)."""

from control.fakes import pool_settings, settings_of
from lbproxy.control.parts import grid_size


def test_the_grid_has_room_for_more_workers_and_several_generations():
    rows, cells = grid_size(settings_of(pool_settings(size=1000), workers=3))
    assert rows >= 3
    assert cells >= 8000
