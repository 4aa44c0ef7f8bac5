from pathlib import Path

import pytest

from lbproxy.config.load import load
from lbproxy.config.problems import ConfigInvalid
from lbproxy.config.symlinks import dangling_symlink


def test_the_symlink_that_leads_nowhere_is_named_with_its_target(tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to("releases/42")
    told = f" ({tmp_path}/current is a symlink to 'releases/42', which does not exist)"
    assert dangling_symlink(f"{tmp_path}/current") == told
    assert dangling_symlink(f"{tmp_path}/current/bin/app") == told


def test_other_paths_add_nothing(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "good").symlink_to("here")
    (tmp_path / "circle").symlink_to("circle")
    for path in (f"{tmp_path}/gone", f"{tmp_path}/good", f"{tmp_path}/good/gone", "relative/gone", "\0"):
        assert dangling_symlink(path) == ""
    assert "a symlink to 'circle'" in dangling_symlink(f"{tmp_path}/circle")


def test_a_configuration_with_one_says_where_it_points(tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to("releases/42")
    file = tmp_path / "lb.toml"
    file.write_text("[[listener]]\naddress = ':1'\n[pool.web]\ncommand = 'x'\ndirectory = 'current'\n")
    with pytest.raises(ConfigInvalid, match=r"current is a symlink to 'releases/42', which does not exist"):
        load(str(file))
