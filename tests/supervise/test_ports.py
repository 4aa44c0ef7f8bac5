import socket
from contextlib import contextmanager

import pytest
from support.ports import free_range

from lbproxy.supervise.ports import NoFreePort, Ports, is_free


@contextmanager
def listener(host="127.0.0.1", family=socket.AF_INET):
    with socket.socket(family) as sock:
        sock.bind((host, free_range(1)))
        sock.listen()
        yield sock.getsockname()[1]


def test_no_port_is_given_twice_until_it_is_given_back():
    first = free_range(10)
    ports = Ports(first, first + 9)
    taken = [ports.take() for _ in range(10)]
    assert sorted(taken) == list(range(first, first + 10))
    with pytest.raises(
        NoFreePort, match=rf"no free port in {first}-{first + 9} .*: 10 held by backends, 0 by other programs"
    ):
        ports.take()
    ports.give_back(taken[4])
    assert ports.take() == taken[4]


def test_a_port_is_not_reused_soon():
    start = free_range(10)
    ports = Ports(start, start + 9)
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
        server.bind(("127.0.0.1", free_range(1)))
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
    start = free_range(10)
    ports = Ports(start, start + 1)
    held = ports.take()
    ports.change(start, start + 2)
    assert sorted([held, ports.take(), ports.take()]) == [start, start + 1, start + 2]
    ports.change(start + 5, start + 6)
    ports.give_back(held)
    assert {ports.take(), ports.take()} == {start + 5, start + 6}
