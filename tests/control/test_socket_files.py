"""Who may connect to a unix socket."""

import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from lbproxy.address import Address
from lbproxy.control.handed_on import HandedListener, HandedSockets
from lbproxy.control.listening_socket import unix_socket
from lbproxy.control.plain import from_plain, plain
from lbproxy.control.socket_files import permissions_of, permit
from lbproxy.control.sockets import Sockets, _Bound
from lbproxy.link.grid import CellBook, Grid
from lbproxy.settings import ListenerSettings


def settings(path: Path, mode: int | None = None, group: str | None = None) -> ListenerSettings:
    return ListenerSettings("local", Address(path=str(path)), socket_mode=mode, socket_group=group)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_gets_what_is_asked_for_and_goes_back(tmp_path: Path) -> None:
    path = tmp_path / "lb.sock"
    with unix_socket(str(path)):
        before = permissions_of(str(path))
        permit(str(path), settings(path, 0o600), before)
        assert mode_of(path) == 0o600
        permit(str(path), settings(path), before)
        assert permissions_of(str(path)) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_group_by_name_or_number(tmp_path: Path) -> None:
    path = tmp_path / "lb.sock"
    with unix_socket(str(path)):
        before = permissions_of(str(path))
        for group, gid in (("daemon", 1), ("4711", 4711)):
            permit(str(path), settings(path, 0o660, group), before)
            assert permissions_of(str(path)) == (0o660, gid)
        permit(str(path), settings(path), before)
        assert permissions_of(str(path)) == before


def test_a_socket_has_its_mode_before_it_listens_and_a_new_one_when_it_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lb.sock"
    sockets, modes = Sockets(CellBook(Grid.create(2, 8))), []
    listen = _Bound.listen
    monkeypatch.setattr(_Bound, "listen", lambda *told: (modes.append(mode_of(path)), listen(*told)))
    try:
        (view,) = sockets.bind([settings(path, 0o640)], 2)
        assert modes[0] == mode_of(path) == 0o640
        (view,) = sockets.bind([settings(path, 0o600)], 2, hidden=True)  # a reload, which may still fail
        assert mode_of(path) == 0o640
        sockets.show([view])
        assert mode_of(path) == 0o600
    finally:
        sockets.close()


def test_a_socket_that_is_taken_over_still_knows_the_mode_it_was_made_with(tmp_path: Path) -> None:
    path = tmp_path / "lb.sock"
    before = Sockets(CellBook(Grid.create(2, 8)))
    before.bind([settings(path)], 2)
    plain_mode = mode_of(path)
    (view,) = before.bind([settings(path, 0o600)], 2)
    before.show([view])
    handed = from_plain(HandedSockets, json.loads(json.dumps(plain(before.hand_on()))))
    after = Sockets(CellBook(Grid.create(2, 8)))
    after.take_over(replace(handed, bound=tuple(_with_copies(one) for one in handed.bound)))
    try:
        after.show(after.views([settings(path)]))
        assert mode_of(path) == plain_mode != 0o600
    finally:
        after.close()
        before.close()


def _with_copies(handed: HandedListener) -> HandedListener:
    """Both programs are one process here."""
    return replace(handed, sockets_fds=tuple(map(os.dup, handed.sockets_fds)))
