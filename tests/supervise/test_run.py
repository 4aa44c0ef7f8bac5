"""The words for how a run ended."""

import pytest

from lbproxy.supervise.run import Run, reason, short_name


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"code": 3}, "exit code 3 before it was ready, twice"),
        ({"code": -9}, "signal SIGKILL before it was ready, twice"),
        ({"code": 3, "ready_s": 1.0}, "exit code 3 before it was proved, twice"),
        ({"why": "no free port"}, "no free port"),
        ({"code": 0}, "exit code 0 before it was ready, twice (a backend has to stay: keep it in the foreground)"),
        (
            {"code": 0, "left_behind": (7,)},
            "exit code 0 before it was ready, twice (it went into the background as pid 7: keep it in the foreground)",
        ),
    ],
)
def test_a_run_says_why_its_backend_is_not_ready(changes, words):
    run = Run(0.0, 0)
    for name, value in changes.items():
        setattr(run, name, value)
    assert reason(run, retried=True) == words


def test_a_signal_is_called_as_in_the_configuration():
    assert short_name(15) == "TERM"
