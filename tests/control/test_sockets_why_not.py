"""Whether an address could be bound: asked without a trace."""

import os
import socket
from pathlib import Path

import pytest

from control.test_sockets import CELLS, Owner, is_served, tcp
from lbproxy.address import Address
from lbproxy.control.listening_socket import BindFailed


def test_an_address_that_could_be_bound_is_left_as_it_is(tmp_path: Path) -> None:
    owner = Owner()
    free, stale = tcp(), tmp_path / "stale"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(stale))
    before = stale.stat().st_ino
    (view,) = owner.bind(tcp())
    for address in (free, Address(path=str(tmp_path / "new")), Address(path=str(stale)), view.settings.address):
        assert owner.sockets.why_not(address) is None
    assert owner.sockets.why_not(Address("", view.settings.address.port)) is None, "it joins our own"
    assert not is_served(free)
    assert os.listdir(tmp_path) == ["stale"]
    assert stale.stat().st_ino == before
    assert owner.free_cells() == CELLS - 1
    owner.close()


def test_why_an_address_cannot_be_bound_is_what_bind_says(tmp_path: Path) -> None:
    owner = Owner()
    (tmp_path / "file").touch()
    with socket.socket() as other, socket.socket(socket.AF_UNIX) as live:
        other.bind(("127.0.0.1", 0))
        other.listen()
        live.bind(str(tmp_path / "live"))
        live.listen()
        for address in (
            Address("127.0.0.1", other.getsockname()[1]),
            Address("192.0.2.1", 8080),
            Address(path=str(tmp_path / "file")),
            Address(path=str(tmp_path / "live")),
            Address(path="/nowhere/lb.sock"),
            Address(passed="web"),
        ):
            with pytest.raises(BindFailed) as caught:
                owner.bind(address)
            assert owner.sockets.why_not(address) == str(caught.value)
    owner.close()
