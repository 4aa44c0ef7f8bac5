"""What a service manager hears from a start to a stop: with a real lbproxy, and with fakes where time matters."""

import signal
import time

import trio
import trio.testing
from support.notify import listening
from support.serve import serving
from support.trio_test import trio_test
from support.web import web

from control.fakes import FakeWorkers, World, pool_settings, settings_of
from lbproxy.control.announce import EXTEND_EVERY_S, Announcer
from lbproxy.telemetry.events import Notice, ServeStopping

FOR_CONTROL = {"NOTIFY_SOCKET", "WATCHDOG_USEC"}


def test_messages_come_in_order_from_start_to_stop(tmp_path):
    with listening(tmp_path) as manager:
        environment = {"NOTIFY_SOCKET": manager.where, "WATCHDOG_USEC": "600000"}
        with serving(web(), tmp_path, environment=environment) as lb:
            lb.wait_until(lambda: manager.states() == ["READY"])
            lb.wait_until(lambda: manager.statuses()[-1] == "serving: web 2 of 2 ready")
            before = time.monotonic_ns() // 1000
            lb.signal(signal.SIGUSR2)
            lb.wait_log('"reload.finished"')
            lb.wait_until(lambda: manager.states() == ["READY", "RELOADING", "READY"])
            (reloading,) = [message for message in manager.messages if "RELOADING" in message]
            assert before <= int(reloading["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
            assert reloading["STATUS"].startswith("reload of web: web ")
            for process in lb.processes():
                if process.pid != lb.pid:  # what execve gave to lbproxy itself stays in its own /proc
                    assert not set(process.environ()) & FOR_CONTROL, process.cmdline()
            lb.write_config(web(workers=0))
            assert lb.cli("reload").returncode == 78
            lb.wait_until(lambda: manager.states() == ["READY", "RELOADING", "READY", "RELOADING", "READY"])
            pings = manager.count("WATCHDOG")
            lb.wait_until(lambda: manager.count("WATCHDOG") >= pings + 2)
            assert lb.stop() == 0
    assert manager.states() == ["READY", "RELOADING", "READY", "RELOADING", "READY", "STOPPING"]
    assert manager.messages[0] == {"STATUS": "starting", "EXTEND_TIMEOUT_USEC": "80000000"}, "start_timeout and more"
    assert manager.statuses()[-1] == "stopping (SIGTERM): work in hand has 30s"
    (stopping,) = [message for message in manager.messages if "STOPPING" in message]
    assert int(stopping["EXTEND_TIMEOUT_USEC"]) >= 2 * EXTEND_EVERY_S * 1e6


def test_other_changes_and_a_reload_that_fails_are_in_the_status(tmp_path):
    with listening() as manager, serving(web(size=1), tmp_path, environment={"NOTIFY_SOCKET": manager.where}) as lb:
        lb.wait_until(lambda: manager.states() == ["READY"])
        lb.write_config(web(size=1, command="$python -c 1/0"))
        assert lb.cli("reload").returncode == 5
        lb.wait_until(lambda: manager.states() == ["READY", "RELOADING", "READY"])
        assert manager.statuses()[-1] == "serving: web 1 of 1 ready; the last change failed (exit code 5)"
        assert lb.cli("pause", "web").returncode == 0
        lb.wait_until(lambda: manager.statuses()[-1].startswith("serving: web 1 of 1 ready (paused);"))
        assert lb.cli("unpause", "web").returncode == 0
        assert lb.cli("scale", "web=2").returncode == 0
        lb.wait_until(lambda: manager.statuses()[-1] == "serving: web 2 of 2 ready")
        assert any(status.startswith("scale of web: web ") for status in manager.statuses())
        assert manager.states() == ["READY", "RELOADING", "READY"], "a unit whose pool is scaled does not reload"


def test_a_backend_that_never_comes_is_ready_after_its_start_timeout(tmp_path):
    broken = web(command="sleep 60", health='path = "/"\nstart_timeout = "700ms"', restart='stop_timeout = "1s"')
    with (
        listening() as manager,
        serving(broken, tmp_path, environment={"NOTIFY_SOCKET": manager.where}, wait=False) as lb,
    ):
        lb.wait_until(lambda: manager.states() == ["READY"])
        assert "serving: web 0 of 2 ready" in manager.statuses()
        lb.wait_log('"serve.started"')


# Where time matters


class Workers(FakeWorkers):
    """`missing` is set to an event while a worker is not alive."""

    missing: trio.Event | None = None

    async def wait_all_serving(self):
        await trio.lowlevel.checkpoint()
        if self.missing is not None:
            await self.missing.wait()


class Notified:
    """Takes messages with the time at which they came."""

    where = "/run/notify"
    error = None

    def __init__(self, watchdog_s=None):
        self.watchdog_s = watchdog_s
        self.messages = []

    async def send(self, *lines):
        await trio.lowlevel.checkpoint()
        if self.error is not None:
            raise self.error
        self.messages.append((trio.current_time(), lines))

    def times_of(self, line):
        return [at for at, lines in self.messages if any(one.startswith(line) for one in lines)]


@trio_test(clock="autojump", timeout_s=1000)
async def test_the_watchdog_is_fed_at_half_its_time_and_not_while_a_worker_is_missing():
    made = World(settings_of(pool_settings()))
    made.context.workers = Workers()
    notify = Notified(watchdog_s=30.0)
    async with made.running():
        began = trio.current_time()
        await made.nursery.start(Announcer(notify, made.context, made.log).run)
        await trio.sleep(31)
        assert [at - began for at in notify.times_of("WATCHDOG=1")] == [0, 15, 30]
        made.context.workers.missing = trio.Event()
        await trio.sleep(100)
        assert len(notify.times_of("WATCHDOG=1")) == 3
        made.context.workers.missing.set()
        await trio.testing.wait_all_tasks_blocked()
        assert notify.times_of("WATCHDOG=1")[3:] == [began + 131]


@trio_test(clock="autojump", timeout_s=1000)
async def test_the_watchdog_is_fed_at_once_behind_an_exec():
    made = World(settings_of(pool_settings()))
    made.context.workers = Workers()
    made.context.workers.missing = trio.Event()
    notify = Notified(watchdog_s=30.0)
    async with made.running():
        await made.nursery.start(Announcer(notify, made.context, made.log, is_ready=True).run)
        await trio.testing.wait_all_tasks_blocked()
        assert len(notify.times_of("WATCHDOG=1")) == 1


@trio_test(clock="autojump", timeout_s=1000)
async def test_a_stop_asks_for_time_until_its_grace_is_over():
    made = World(settings_of(pool_settings()))
    made.context.workers = Workers()
    notify = Notified()
    async with made.running():
        await made.nursery.start(Announcer(notify, made.context, made.log).run)
        await trio.testing.wait_all_tasks_blocked()
        notify.messages.clear()
        began = trio.current_time()
        made.emit(ServeStopping("TERM", 17.0))
        made.fleet.touch()
        await trio.sleep(60)
        assert [at - began for at in notify.times_of("EXTEND_TIMEOUT_USEC=")] == [0, 5, 10, 15]
        assert len(notify.times_of("STATUS=stopping (TERM): work in hand has 17s")) == 1


@trio_test(clock="autojump", timeout_s=1000)
async def test_a_service_manager_that_is_gone_is_said_once():
    made = World(settings_of(pool_settings()))
    made.context.workers = Workers()
    notify = Notified(watchdog_s=1.0)
    notify.error = ConnectionRefusedError(111, "Connection refused")
    async with made.running():
        with made.log.subscribe(lambda event: isinstance(event, Notice)) as notices:
            await made.nursery.start(Announcer(notify, made.context, made.log).run)
            await trio.sleep(10)
        said = [event.text async for event in notices]
    assert said == ["the service manager cannot be told at /run/notify: Connection refused"]
