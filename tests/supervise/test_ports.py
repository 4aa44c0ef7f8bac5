import socket
from contextlib import contextmanager

import pytest
from support.ports import free_port

from lbproxy.supervise.ports import NoFreePort, Ports, is_free


@contextmanager
def listener(host="127.0.0.1", family=socket.AF_INET):
    with socket.socket(family) as sock:
        sock.bind((host, free_port()))  # not an ephemeral one: another program may have it on another address
        sock.listen()
        yield sock.getsockname()[1]


def test_no_port_is_given_twice_until_it_is_given_back():
    ports = Ports(21000, 21009)
    taken = [ports.take() for _ in range(10)]
    assert sorted(taken) == list(range(21000, 21010))
    with pytest.raises(NoFreePort, match=r"no free port in 21000-21009 .*: 10 held by backends, 0 by other programs"):
        ports.take()
    ports.give_back(taken[4])
    assert ports.take() == taken[4]


def test_a_port_is_not_reused_soon():
    ports = Ports(21000, 21009)
    first = ports.take()
    ports.give_back(first)
    assert [ports.take() for _ in range(10)][-1] == first


def test_a_port_on_which_somebody_listens_is_passed_over():
    with listener() as port:
        ports = Ports(port, port)
        with pytest.raises(NoFreePort, match="0 held by backends, 1 by other programs"):
            ports.take()
    assert ports.take() == port


@pytest.mark.parametrize(
    ("host", "family"), [("127.0.0.1", socket.AF_INET), ("0.0.0.0", socket.AF_INET), ("::1", socket.AF_INET6)]
)
def test_a_listener_on_any_address_makes_a_port_taken(host, family):
    try:
        with listener(host, family) as port:
            assert not is_free(port)
            assert not is_free(port, reuse=True)
    except OSError:
        pytest.skip("no such address here")
    assert is_free(port)


def test_ports_with_old_connections_are_the_last_choice():
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            accepted, _ = server.accept()
            accepted.close()  # this side keeps TIME_WAIT
            assert client.recv(1) == b""
    assert not is_free(port)
    assert is_free(port, reuse=True)
    assert Ports(port, port).take() == port


def test_another_range_keeps_what_is_held():
    ports = Ports(21000, 21001)
    held = ports.take()
    ports.change(21000, 21002)
    assert sorted([held, ports.take(), ports.take()]) == [21000, 21001, 21002]
    ports.change(21010, 21011)
    ports.give_back(held)
    assert {ports.take(), ports.take()} == {21010, 21011}
