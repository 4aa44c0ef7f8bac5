"""What an authority would find: real sockets on loopback, and a resolver of our own."""

from collections.abc import Callable
from pathlib import Path

import trio
from support.ports import free_port
from support.trio_test import trio_test

from lbproxy.acme.preflight import Surroundings, examine
from lbproxy.settings import AcmeSettings

OK = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


async def resolve(link: trio.socket.SocketType, records: dict[bytes, list[bytes]]) -> None:
    """A resolver that knows the values of `issue` for some names."""
    while True:
        asked, client = await link.recvfrom(512)
        found = records.get(asked[12:-4], [])
        header = asked[:2] + b"\x81\x80\0\1" + len(found).to_bytes(2) + bytes(4)
        data = [bytes([0, 5]) + b"issue" + value for value in found]
        body = b"".join(b"\xc0\x0c\1\1\0\1" + bytes(4) + len(one).to_bytes(2) + one for one in data)
        await link.sendto(header + asked[12:] + body, client)


async def answer_http(stream: trio.SocketStream) -> None:
    async with stream:
        await stream.receive_some(4096)
        await stream.send_all(OK)


async def examined(acme: AcmeSettings, records: dict[bytes, list[bytes]], *, listens: bool = True) -> list[str]:
    async with trio.open_nursery() as nursery:
        with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as link:
            await link.bind(("127.0.0.1", 0))
            nursery.start_soon(resolve, link, records)
            port = free_port()
            if listens:
                listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
                serve: Callable[..., object] = trio.serve_listeners
                nursery.start_soon(serve, answer_http, listeners)  # type: ignore[arg-type]
            found = await examine(acme, Surroundings(port, link.getsockname()))
            nursery.cancel_scope.cancel()
    return found


HOST = AcmeSettings(("127.0.0.1",))  # an address needs no DNS; the file takes names only
NAME = b"\x03127\x010\x010\x011\0"


@trio_test
async def test_a_name_that_answers_and_may_have_a_certificate_is_fine() -> None:
    assert await examined(HOST, {}) == []
    assert await examined(HOST, {NAME: [b"letsencrypt.org; x=y"]}) == []
    assert await examined(AcmeSettings(HOST.domains, server="https://ca.example/"), {NAME: [b"ca.example"]}) == []


@trio_test
async def test_it_says_what_is_to_be_mended() -> None:
    (closed,) = await examined(HOST, {}, listens=False)
    assert closed.startswith("127.0.0.1: port ")
    assert closed.endswith(" of 127.0.0.1: connection refused (is lbproxy running, and is the port open?)")
    other = {NAME[4:]: [b"other.example"]}  # of the name above
    assert await examined(HOST, other) == [
        "127.0.0.1: its CAA records allow only other.example: add letsencrypt.org",
    ]
    assert await examined(AcmeSettings(HOST.domains, server="https://ca.example/"), {NAME: [b";"]}) == [
        "127.0.0.1: its CAA records allow nobody to issue certificates",
    ]
    (unknown,) = [line for line in await examined(AcmeSettings(("a.invalid",)), {}) if "CAA" not in line]
    assert unknown.startswith("a.invalid: has no address in the DNS (")


def test_the_resolver_is_that_of_the_system(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    assert Surroundings.of_this_machine(str(file)).resolver is None
    file.write_text("# x\nsearch a\nnameserver 127.0.0.53\nnameserver 1.1.1.1\n")
    assert Surroundings.of_this_machine(str(file)).resolver == ("127.0.0.53", 53)
