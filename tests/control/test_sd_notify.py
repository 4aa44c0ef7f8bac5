"""sd_notify: what the environment says, and one datagram for each message."""

import pytest
import trio
from support.notify import listening

from lbproxy.control.sd_notify import Notify, take

PID = 4102


def test_without_a_service_manager_there_is_nobody_to_tell():
    assert take({"PATH": "/bin"}, PID) is None
    assert take({"NOTIFY_SOCKET": ""}, PID) is None


@pytest.mark.parametrize("watched", [{}, {"WATCHDOG_PID": "4102"}])
def test_what_is_read_is_removed(watched):
    environ = {"PATH": "/bin", "NOTIFY_SOCKET": "@here", "WATCHDOG_USEC": "30000000", **watched}
    assert take(environ, PID) == Notify("@here", 30.0)
    assert environ == {"PATH": "/bin"}


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "4103"},
        *({"WATCHDOG_USEC": usec} for usec in ("0", "-1", "soon", "1e6", "٣")),
    ],
    ids=str,
)
def test_a_watchdog_that_is_not_for_this_process_is_none(variables):
    assert take({"NOTIFY_SOCKET": "/run/notify", **variables}, PID) == Notify("/run/notify", None)


@pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract"])
def test_a_message_is_one_datagram(tmp_path, abstract):
    with listening(None if abstract else tmp_path) as manager:
        trio.run(Notify(manager.where).send, "READY=1", "STATUS=serving: web 4 of 4 ready")
    assert manager.messages == [{"READY": "1", "STATUS": "serving: web 4 of 4 ready"}]


def test_a_socket_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        trio.run(Notify(str(tmp_path / "gone")).send, "READY=1")
