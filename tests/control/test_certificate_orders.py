"""Orders as control sees them: a real process, whose authority is not there, and challenges in the table."""

from dataclasses import replace
from pathlib import Path

import trio
from support.ports import free_port
from support.trio_test import trio_test

from control.fakes import World, pool_settings, settings_of
from lbproxy.acme.messages import Challenges, Standing
from lbproxy.control import certificate_orders as module
from lbproxy.settings import AcmeSettings, CertificateFiles, Settings, TlsSettings
from lbproxy.telemetry.events import CertificateRejected, Notice


def settings(tmp_path: Path) -> Settings:
    file = str(tmp_path / "a.pem")
    acme = AcmeSettings(("a.example",), server=f"https://127.0.0.1:{free_port()}/dir")
    made = settings_of(pool_settings(), listeners=["127.0.0.1:8001"])
    tls = TlsSettings((CertificateFiles(file, file),), acme=acme)
    return replace(made, listeners=(replace(made.listeners[0], name="tls", tls=tls),))


class Link(trio.abc.SendStream):
    def __init__(self) -> None:
        self.sent = b""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        self.sent += bytes(data)

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


@trio_test
async def test_a_failure_is_said_once(tmp_path: Path) -> None:
    control = World(settings(tmp_path))
    orders, tls = control.context.orders, control.settings.listeners[0].tls
    assert tls is not None
    orders.apply(control.settings)
    assert orders.facts(tls)["state"] == "starting"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(orders.run)
        await control.wait_for(CertificateRejected)
        [rejected] = control.of(CertificateRejected)
        assert rejected.why.startswith("could not be ordered: the authority cannot be asked: connection refused; next")
        assert rejected.listeners == ("tls",)
        facts = orders.facts(tls)
        assert facts["state"] == "failed"
        assert facts["why"] == "the authority cannot be asked: connection refused"
        assert facts["next_try"] > "2"
        orders._note(Standing(tls.certs[0].cert, "failed", facts["why"], 1.0))
        assert len(control.of(CertificateRejected)) == 1
        orders.apply(replace(control.settings, listeners=()))
        assert orders.facts(tls)["state"] == "starting"
        nursery.cancel_scope.cancel()


@trio_test
async def test_a_process_that_dies_is_replaced(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "RESPAWN_S", 0.01)
    monkeypatch.setattr(module, "COMMAND", ("true",))
    control = World(settings(tmp_path))
    control.context.orders.apply(control.settings)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(control.context.orders.run)
        await control.wait_for(Notice, 2)
        nursery.cancel_scope.cancel()
    texts = [event.text for event in control.of(Notice)]
    assert texts[0] == "the process that orders certificates has ended: another is started in 0.01s"
    assert texts[1].endswith("another is started in 0.02s")


@trio_test
async def test_challenges_are_in_the_table_until_they_are_over(tmp_path: Path) -> None:
    control, link = World(settings(tmp_path)), Link()
    orders = control.context.orders
    await orders._take(Challenges(1, (("a", "A"),)), link)
    await orders._take(Challenges(2, (("b", "B"),)), link)
    assert control.fleet.table is not None
    assert control.fleet.table.challenges == (("a", "A"), ("b", "B"))
    assert link.sent == b'{"kind": "Served", "number": 1}\n{"kind": "Served", "number": 2}\n'
    await orders._take(Challenges(1, ()), link)
    assert control.fleet.table.challenges == (("b", "B"),)
    epoch = control.fleet.table.epoch
    await orders._take(Challenges(1, ()), link)
    assert control.fleet.table.epoch == epoch
    await orders._withdraw()
    assert control.fleet.table.challenges == ()
