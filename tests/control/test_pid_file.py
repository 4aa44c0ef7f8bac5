"""The pid file: ours while we run."""

import os

import pytest

from lbproxy.control.pid_file import PidFile, PidFileFailed


def test_it_holds_the_pid_and_goes_in_the_end(tmp_path):
    path = tmp_path / "lb.pid"
    path.write_text("1234\n")
    held = PidFile(str(path))
    assert path.read_text() == f"{os.getpid()}\n"
    held.close()
    assert not path.exists()


def test_what_somebody_else_wrote_since_stays(tmp_path):
    path = tmp_path / "lb.pid"
    held = PidFile(str(path))
    path.write_text("1234\n")
    held.close()
    assert path.read_text() == "1234\n"


def test_a_file_that_has_gone_is_no_trouble(tmp_path):
    path = tmp_path / "lb.pid"
    held = PidFile(str(path))
    path.unlink()
    held.close()


def test_one_that_cannot_be_written_is_one_line(tmp_path):
    with pytest.raises(PidFileFailed, match=r"cannot write the pid file .*No such file"):
        PidFile(str(tmp_path / "none" / "lb.pid"))
