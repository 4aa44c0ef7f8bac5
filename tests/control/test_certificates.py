"""Certificates that change are served, broken ones are not, and each thing is said once."""

import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from support.certificates import Pair, authority, certificate
from support.trio_test import trio_test

from control.fakes import pool_settings, settings_of
from lbproxy.config.problems import ConfigInvalid
from lbproxy.control import certificates as module
from lbproxy.control.certificates import DAY_S, Certificates
from lbproxy.model import ListenerView
from lbproxy.settings import CertificateFiles, Settings, TlsSettings
from lbproxy.telemetry.events import CertificateExpiring, CertificateLoaded, CertificateRejected, Notice


class Made:
    """Certificates with a clock of its own, whose deliveries are noted."""

    def __init__(self, settings: Settings, *, days: float = 0) -> None:
        self.at_s = days * DAY_S
        self.events, self.delivered = [], 0
        self.has_delivered = trio.Event()
        self.certificates = Certificates(settings, lambda: time.time() + self.at_s)
        self.certificates._emit = self.events.append
        self.certificates._deliver = self.deliver

    async def deliver(self) -> None:
        self.delivered += 1
        self.has_delivered.set()
        await trio.lowlevel.checkpoint()

    def saw(self, kind: type) -> list:
        found = [event for event in self.events if isinstance(event, kind)]
        self.events.clear()
        return found


def tls_of(pair: Pair, **more: str) -> TlsSettings:
    return TlsSettings(certs=(CertificateFiles(str(pair.cert), str(pair.key)),), **more)


def settings(*all_tls: TlsSettings) -> Settings:
    made = settings_of(pool_settings(), listeners=[f"127.0.0.1:{8001 + number}" for number in range(len(all_tls))])
    listeners = tuple(
        replace(listener, name=f"l{number}", tls=tls)
        for number, (listener, tls) in enumerate(zip(made.listeners, all_tls, strict=True))
    )
    return replace(made, listeners=listeners)


def put(source: Pair, target: Pair) -> None:
    shutil.copy(source.cert, target.cert)
    shutil.copy(source.key, target.key)
    for file in (target.cert, target.key):
        os.utime(file, (time.time() - 60, time.time() - 60 - len(source.cert.name)))


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return certificate(tmp_path, "a.example", "www.a.example")


@pytest.fixture
def fresh(tmp_path: Path) -> Pair:
    return certificate(tmp_path / "fresh", "fresh.example")


@trio_test
async def test_a_start_says_what_is_served_and_what_to_know(pair: Pair) -> None:
    pair.key.chmod(0o604)
    tls = tls_of(pair)
    made = Made(settings(tls, tls))
    made.certificates.adopt(settings(tls, tls))
    remark, loaded = made.events
    assert isinstance(remark, Notice)
    assert remark.text == f"listener.tls.key: '{pair.key}' holds a private key that everybody can read (mode 0604)"
    assert loaded == CertificateLoaded(str(pair.cert), ("a.example", "www.a.example"), loaded.not_after, ("l0", "l1"))
    assert made.certificates.of(tls).pairs[0].names == ("a.example", "www.a.example")
    assert made.certificates.of(None) is None
    (facts,) = made.certificates.facts(tls)
    assert facts["names"] == ["a.example", "www.a.example"]
    assert facts["not_after"] == loaded.not_after
    assert facts["days_left"] == 29
    assert [labels for labels, _ in made.certificates.not_after()] == [("l0", "a.example"), ("l1", "a.example")]


@trio_test
async def test_a_start_with_a_broken_pair_is_refused(pair: Pair) -> None:
    pair.key.write_text("")
    with pytest.raises(ConfigInvalid, match="is empty"):
        Certificates(settings(tls_of(pair)))


@trio_test
async def test_files_that_change_are_served(pair: Pair, fresh: Pair) -> None:
    tls = tls_of(pair)
    made = Made(settings(tls))
    made.certificates.adopt(settings(tls))
    made.events.clear()
    await made.certificates.look()
    assert (made.events, made.delivered) == ([], 0)
    put(fresh, pair)
    await made.certificates.look()
    assert made.delivered == 1
    assert [event.names for event in made.saw(CertificateLoaded)] == [("fresh.example",)]
    assert made.certificates.facts(tls)[0]["names"] == ["fresh.example"]
    await made.certificates.look()
    assert (made.events, made.delivered) == ([], 1)


@trio_test
async def test_half_of_a_change_is_waited_for_and_then_said_once(
    pair: Pair, fresh: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.2)
    tls = tls_of(pair)
    made = Made(settings(tls))
    made.certificates.adopt(settings(tls))
    made.events.clear()
    shutil.copy(fresh.cert, pair.cert)
    await made.certificates.look()
    assert made.events == []
    await trio.sleep(0.2)
    for _ in range(3):
        await made.certificates.look()
    (rejected,) = made.saw(CertificateRejected)
    assert (rejected.file, rejected.listeners) == (str(pair.key), ("l0",))
    assert "the private key is not that of the certificate" in rejected.why
    assert made.certificates.facts(tls)[0]["names"] == ["a.example", "www.a.example"], "the old one stays"
    assert made.delivered == 0
    shutil.copy(fresh.key, pair.key)
    await made.certificates.look()
    assert [event.names for event in made.saw(CertificateLoaded)] == [("fresh.example",)]


@trio_test
async def test_a_reload_says_at_once_what_is_wrong(pair: Pair) -> None:
    tls = tls_of(pair)
    made = Made(settings(tls))
    made.certificates.adopt(settings(tls))
    made.events.clear()
    pair.key.unlink()
    await made.certificates.look(reload="r1")
    (rejected,) = made.saw(CertificateRejected)
    assert (rejected.why, rejected.reload) == ("does not exist", "r1")
    await made.certificates.look()
    assert made.events == []


@trio_test
async def test_settings_of_a_reload_are_read_before_and_kept_until_no_table_needs_them(pair: Pair, fresh: Pair) -> None:
    old, new = settings(tls_of(pair)), settings(tls_of(fresh))
    made = Made(old)
    made.certificates.adopt(old)
    made.events.clear()
    await made.certificates.prepare(new, keep=False)
    made.certificates.adopt(new)
    assert made.certificates.of(tls_of(fresh)) is None, "a preview keeps nothing"
    await made.certificates.prepare(new)
    made.certificates.adopt(new, "r1")
    assert made.certificates.of(tls_of(pair)) is not None
    assert [event.reload for event in made.saw(CertificateLoaded)] == ["r1"]
    made.certificates.forget_others()
    assert made.certificates.of(tls_of(pair)) is None
    assert made.certificates.of(tls_of(fresh)) is not None
    fresh.cert.unlink()
    await made.certificates.prepare(new)  # it is served: the look of the reload says it
    pair.key.unlink()
    with pytest.raises(ConfigInvalid):
        await made.certificates.prepare(old)


@trio_test
async def test_a_certificate_that_is_about_to_expire_is_said_at_each_threshold(pair: Pair, fresh: Pair) -> None:
    tls = tls_of(pair)
    made = Made(settings(tls))
    made.certificates.adopt(settings(tls))
    made.events.clear()
    said = []
    for days in (5, 8.5, 9.5, 10, 22.5, 23.5, 25, 28.5, 29.5, 30.5, 40):  # it has 30
        made.at_s = days * DAY_S
        await made.certificates.look()
        said += [(days, event.days_left) for event in made.saw(CertificateExpiring)]
    assert said == [(9.5, 20), (23.5, 6), (29.5, 0), (30.5, -1)]
    put(fresh, pair)
    made.at_s = 0
    await made.certificates.look()
    made.events.clear()
    made.at_s = 10 * DAY_S
    await made.certificates.look()
    assert [event.days_left for event in made.saw(CertificateExpiring)] == [19]


@trio_test
async def test_client_authorities_that_change_are_said(pair: Pair, tmp_path: Path) -> None:
    ca, other = authority(tmp_path, "One"), authority(tmp_path, "Two")
    tls = tls_of(pair, client_ca=str(ca.cert), client_auth="require")
    made = Made(settings(tls))
    made.certificates.adopt(settings(tls))
    assert [event.names for event in made.saw(CertificateLoaded)] == [("a.example", "www.a.example"), ("CN=One",)]
    put(other, ca)
    await made.certificates.look()
    assert [event.names for event in made.saw(CertificateLoaded)] == [("CN=Two",)]
    assert made.delivered == 1


@trio_test
async def test_a_certificate_that_leaves_a_directory_is_said(pair: Pair, fresh: Pair) -> None:
    tls = TlsSettings(directory=str(pair.cert.parent))
    other = certificate(pair.cert.parent, "b.example")
    made = Made(settings(tls))
    made.certificates.adopt(settings(tls))
    made.events.clear()
    other.cert.unlink()
    other.key.unlink()
    await made.certificates.look()
    assert [event.text for event in made.events] == [
        f"{other.cert} is gone: the certificate of b.example is not served any more"
    ]
    assert made.delivered == 1


@trio_test
async def test_what_a_worker_refuses_is_said_once(pair: Pair) -> None:
    tls = tls_of(pair)
    made = Made(settings(tls))
    made.certificates.adopt(settings(tls))
    made.events.clear()
    view = ListenerView(1, 0, settings(tls).listeners[0])
    for _ in range(3):
        made.certificates._refuse(view, made.certificates.of(tls), "no room")
    (rejected,) = made.saw(CertificateRejected)
    assert rejected.why == "is refused by a worker: no room"


@trio_test
async def test_files_are_looked_at_while_there_are_certificates(
    pair: Pair, fresh: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.01)
    nothing, something = settings(), settings(tls_of(pair))
    made = Made(nothing)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.certificates.run)
        await trio.testing.wait_all_tasks_blocked(0.05)
        await made.certificates.prepare(something)
        made.certificates.adopt(something)
        put(fresh, pair)
        await made.has_delivered.wait()
        nursery.cancel_scope.cancel()
