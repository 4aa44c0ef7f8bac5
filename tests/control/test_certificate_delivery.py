"""A worker gets each set of certificates once, as sealed descriptors, and the newest one after a change."""

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio
from support.certificates import authority, certificate
from support.trio_test import trio_test

from lbproxy.address import Address
from lbproxy.certificates.certificate_set import CertificateSet, look_at
from lbproxy.control.certificate_delivery import CertificateDelivery
from lbproxy.control.worker_process import WorkerProcess
from lbproxy.link.channel import Channel
from lbproxy.link.messages import CertificateNames, Certificates, ToControl, ToWorker
from lbproxy.model import ListenerView
from lbproxy.settings import CertificateFiles, ListenerSettings, TlsSettings


@asynccontextmanager
async def linked() -> AsyncIterator[tuple[WorkerProcess, Channel]]:
    ours, theirs = socket.socketpair()
    worker = WorkerProcess(1, 1, SimpleNamespace(), Channel(ours, ToControl))
    other = Channel(theirs, ToWorker)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.channel.run_writer)
        yield worker, other
        nursery.cancel_scope.cancel()
    worker.channel.close()
    other.close()


def made_of(directory: Path, *names: str) -> tuple[TlsSettings, CertificateSet]:
    pairs = [certificate(directory, name) for name in names]
    ca = authority(directory)
    files = tuple(CertificateFiles(str(pair.cert), str(pair.key)) for pair in pairs)
    tls = TlsSettings(certs=files, client_ca=str(ca.cert), client_auth="require")
    found = look_at(tls).found
    assert found is not None
    return tls, found


def view_of(key: int, tls: TlsSettings | None) -> ListenerView:
    return ListenerView(key, 0, ListenerSettings("l", Address.parse(":1"), tls=tls))


def contents(channel: Channel, count: int) -> list[bytes]:
    fds = channel.take_fds(count)
    try:
        return [Path(f"/proc/self/fd/{fd}").read_bytes() for fd in fds]
    finally:
        for fd in fds:
            os.close(fd)


@trio_test
async def test_chains_keys_and_authorities_go_with_their_names(tmp_path: Path) -> None:
    tls, found = made_of(tmp_path, "a.example", "*.b.example")
    delivery = CertificateDelivery()
    delivery.current = lambda view: found
    async with linked() as (worker, other):
        delivery.send(worker, [view_of(7, tls), view_of(8, None)])
        message = await other.receive()
        names = (CertificateNames(("a.example",)), CertificateNames(("*.b.example",)))
        assert message == Certificates(1, 7, names, has_client_ca=True)
        files = [file for files in tls.certs for file in (files.cert, files.key)]
        assert contents(other, 5) == [Path(file).read_bytes() for file in [*files, tls.client_ca]]
        delivery.send(worker, [view_of(7, tls)])
        assert list(worker.unanswered) == [1], "it has them"
        delivery.answered(worker, 1, "")
        assert worker.unanswered == {}


@trio_test
async def test_no_message_names_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tls, found = made_of(tmp_path, "a.example")
    delivery = CertificateDelivery()
    delivery.current = lambda view: found
    async with linked() as (worker, _):
        delivery.send(worker, [view_of(7, tls)])
        ((frame, _, _),) = worker.channel._outbox
        assert b"PRIVATE" not in frame
        assert b"/" not in frame


@trio_test
async def test_a_set_that_is_replaced_on_its_way_arrives_whole(tmp_path: Path) -> None:
    tls, first = made_of(tmp_path / "1", "a.example")
    _, second = made_of(tmp_path / "2", "b.example")
    sets = [first, second]
    expected = [first.pairs[0].key.read(), second.pairs[0].key.read()]
    del first, second
    delivery = CertificateDelivery()
    delivery.current = lambda view: sets[0]
    async with linked() as (worker, other):
        delivery.send(worker, [view_of(7, tls)])
        del sets[0]
        delivery.send(worker, [view_of(7, tls)])
        for key in expected:
            await other.receive()
            assert contents(other, 3)[1] == key


@trio_test
async def test_a_listener_that_goes_is_forgotten_and_one_that_comes_back_gets_them_again(tmp_path: Path) -> None:
    tls, found = made_of(tmp_path, "a.example")
    delivery = CertificateDelivery()
    delivery.current = lambda view: found
    async with linked() as (worker, other):
        for serial in (1, 2):
            delivery.send(worker, [view_of(7, tls)])
            assert (await other.receive()).serial == serial
            contents(other, 3)
            delivery.send(worker, [view_of(7, None)])
            assert worker.certificates == {}


@trio_test
async def test_what_a_worker_cannot_load_is_passed_on(tmp_path: Path) -> None:
    tls, found = made_of(tmp_path, "a.example")
    delivery = CertificateDelivery()
    delivery.current = lambda view: found
    refused = []
    delivery.on_refused = lambda view, found, why: refused.append((view.key, found, why))
    async with linked() as (worker, _):
        delivery.send(worker, [view_of(7, tls)])
        delivery.answered(worker, 1, "no room")
        delivery.answered(worker, 99, "never sent")
    assert refused == [(7, found, "no room")]


@trio_test
async def test_a_set_that_has_lost_its_authorities_comes_behind_the_table(tmp_path: Path) -> None:
    tls, first = made_of(tmp_path, "a.example")
    sets = [first]
    delivery = CertificateDelivery()
    delivery.current = lambda view: sets[0]
    async with linked() as (worker, other):
        delivery.send(worker, [view_of(7, tls)])
        assert (await other.receive()).has_client_ca
        contents(other, 3)
        sets[0] = CertificateSet(first.pairs)
        delivery.send(worker, [view_of(7, tls)])
        assert worker.certificates[7] is first
        delivery.send(worker, [view_of(7, tls)], table_is_sent=True)
        assert not (await other.receive()).has_client_ca
        contents(other, 2)
