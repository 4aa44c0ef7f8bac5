"""The handshake of [admin]: the certificate for the name, the newest set, and clients that speak something else."""

import ssl
from pathlib import Path

import pytest
import trio
from support.certificates import authority, certificate
from support.trio_test import trio_test

from lbproxy.certificates.certificate_set import CertificateSet, look_at
from lbproxy.control.admin_tls import AdminTls
from lbproxy.control.api_server import Declined
from lbproxy.settings import CertificateFiles, TlsSettings


def made_of(directory: Path, *names: str) -> tuple[TlsSettings, CertificateSet, Path]:
    ca = authority(directory)
    pairs = [certificate(directory, name, by=ca) for name in names]
    tls = TlsSettings(certs=tuple(CertificateFiles(str(pair.cert), str(pair.key)) for pair in pairs))
    found = look_at(tls).found
    assert found is not None
    return tls, found, ca.cert


async def met(admin: AdminTls, tls: TlsSettings, found: CertificateSet, client) -> str:
    """What the client says after it has met the server, which answers with one line."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    said = []
    async with listeners[0], trio.open_nursery() as nursery:

        async def serve() -> None:
            connection, _ = await listeners[0].socket.accept()
            with connection:
                try:
                    stream = await admin.handshake(connection, tls, found)
                    await stream.send_all(b"hello\n")
                    await stream.aclose()
                except (trio.BrokenResourceError, Declined) as exc:
                    said.append(f"{type(exc).__name__}: {exc}")

        nursery.start_soon(serve)
        stream = await trio.open_tcp_stream("127.0.0.1", listeners[0].socket.getsockname()[1])
        async with stream:
            said.append(await client(stream))
    return str(said)


def asking(ca: Path, name: str):
    async def client(stream: trio.SocketStream) -> str:
        context = ssl.create_default_context(cafile=str(ca))
        secured = trio.SSLStream(stream, context, server_hostname=name)
        data = await secured.receive_some()
        return f"{bytes(data).decode().strip()} from {secured.getpeercert()['subjectAltName'][0][1]}"

    return client


@trio_test
async def test_the_certificate_is_that_of_the_name_and_of_the_newest_set(tmp_path: Path) -> None:
    admin = AdminTls()
    tls, found, ca = made_of(tmp_path, "a.example", "b.example")
    for name in ("a.example", "b.example", "a.example"):
        assert await met(admin, tls, found, asking(ca, name)) == f"['hello from {name}']"
    other, newer, other_ca = made_of(tmp_path / "other", "c.example")
    assert await met(admin, other, newer, asking(other_ca, "c.example")) == "['hello from c.example']"


@trio_test
async def test_plain_http_is_told_and_one_that_goes_is_let_go(tmp_path: Path) -> None:
    tls, found, ca = made_of(tmp_path, "a.example")

    async def plain(stream: trio.SocketStream) -> str:
        await stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
        return "asked"

    async def leave(stream: trio.SocketStream) -> str:
        await stream.send_eof()
        return "left"

    async def wrong(stream: trio.SocketStream) -> str:
        await stream.send_all(b"\x16" + bytes(100))
        return "sent nonsense"

    async def distrust(stream: trio.SocketStream) -> str:
        context = ssl.create_default_context()
        with pytest.raises(trio.BrokenResourceError):
            await trio.SSLStream(stream, context, server_hostname="a.example").do_handshake()
        return "refused"

    admin = AdminTls()
    assert "Declined: this port speaks HTTPS" in await met(admin, tls, found, plain)
    for client in (leave, wrong, distrust):
        assert "BrokenResourceError" in await met(admin, tls, found, client)
    assert "hello" in await met(admin, tls, found, asking(ca, "a.example"))
