"""The procedure of an upgrade up to the exec, which a test only pretends. e2e/test_upgrade.py has the whole."""

import contextlib
import os
import signal
import sys
from types import SimpleNamespace

import pytest
import trio
from support.trio_test import trio_test

from control.handed_sample import document
from control.quiet_sink import QuietSink
from lbproxy.control.audit import Audit
from lbproxy.control.change_ids import ChangeIds
from lbproxy.control.program import Program
from lbproxy.control.reloader import ReloadBusy, Reloader
from lbproxy.control.upgrader import CannotUpgrade, Site, Upgrader, Wish
from lbproxy.supervise.resources import Resources
from lbproxy.telemetry.events import UpgradeDone, UpgradeProved, UpgradeStarted
from lbproxy.telemetry.log import Log

PROOF = """print('{"version": "2", "backends": 3, "workers": 2}')"""


class FakeProgram(Program):
    """Executes nothing: notes what it was given, and whether signals wait."""

    executed = []

    def execute(self, document_fd, keep):
        self.executed.append((sorted(keep), signal.pthread_sigmask(signal.SIG_BLOCK, ())))
        raise OSError(2, "it is only a test")


@contextlib.asynccontextmanager
async def upgrader(code=PROOF, *, unsettled=lambda: None, is_stopping=lambda: False, fds=True):
    log = Log(QuietSink(), level="info", format="json")
    FakeProgram.executed = []
    resources = Resources.make(log.emit, (20000, 20001), 100)
    handed = document()
    succession = SimpleNamespace(
        unsettled=unsettled, hand_on=lambda upgrade: handed, memory=SimpleNamespace(flush=lambda: None)
    )
    site = Site(
        FakeProgram((sys.executable, "-c", code), dict(os.environ)),
        log,
        resources,
        Reloader(SimpleNamespace(emit=log.emit, fleet=SimpleNamespace(names=None)), lambda: None),
        ChangeIds(),
        succession,
        (),
        (signal.SIGUSR2,),
        Audit(log.emit),
        is_stopping,
    )
    made = Upgrader(site)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("lbproxy.control.upgrader.descriptors", lambda document: iter(()))
        async with trio.open_nursery() as nursery:
            await nursery.start(made.run)
            yield made, site
            nursery.cancel_scope.cancel()


async def events_of(log, act):
    found = []
    with log.subscribe() as events:
        act()
        while not found or not isinstance(found[-1], UpgradeDone):
            found.append(await anext(events))
    return found


@trio_test
async def test_a_program_that_has_passed_its_trial_is_executed_while_signals_wait():
    async with upgrader() as (made, site):
        started, proved, done = await events_of(site.log, lambda: made.start(Wish()))
        assert isinstance(started, UpgradeStarted)
        assert isinstance(proved, UpgradeProved)
        assert (proved.version, proved.backends, proved.workers) == ("2", 3, 2)
        ((kept, blocked),) = FakeProgram.executed
        assert signal.SIGUSR2 in blocked
        assert signal.SIGUSR2 not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
        assert kept == []
        assert (done.result, done.exit_code) == ("failed", 5)
        assert done.why == "the installed program cannot be executed: it is only a test"
        site.reloader.hold("a reload may begin again")


@trio_test
async def test_a_failed_trial_executes_nothing():
    async with upgrader("raise SystemExit('broken')") as (made, site):
        *_, done = await events_of(site.log, lambda: made.start(Wish()))
        assert done.output == ("broken",), done
        assert FakeProgram.executed == []


@trio_test
async def test_nothing_else_may_run_meanwhile_and_the_reverse():
    async with upgrader() as (made, site):
        made.start(Wish())
        with pytest.raises(ReloadBusy, match=r"an upgrade of lbproxy is running \(u1\)"):
            made.start(Wish())
        with pytest.raises(ReloadBusy, match="an upgrade"):
            site.reloader.hold("a reload")


@trio_test
async def test_a_stop_that_has_begun_is_no_time_for_an_upgrade():
    async with upgrader(is_stopping=lambda: True) as (made, _):
        with pytest.raises(CannotUpgrade, match="being stopped"):
            made.start(Wish())


@trio_test
async def test_a_stop_in_the_middle_of_a_trial_ends_the_upgrade_with_that_reason():
    async with upgrader("input()") as (made, site):
        *_, done = await events_of(site.log, lambda: (made.start(Wish()), made.cancel()))
        assert (done.result, done.exit_code, done.why) == ("failed", 5, "lbproxy is being stopped")
        assert FakeProgram.executed == []


@trio_test
async def test_what_never_settles_is_a_reason(monkeypatch):
    monkeypatch.setattr("lbproxy.control.upgrader.SETTLE_S", 0.1)
    async with upgrader(unsettled=lambda: "a backend is being started or stopped") as (made, site):
        *_, done = await events_of(site.log, lambda: made.start(Wish()))
        assert done.why == "a backend is being started or stopped"
