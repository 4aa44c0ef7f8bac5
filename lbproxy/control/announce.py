"""Tell the service manager what lbproxy does: ready, reloading, stopping, and one sentence of status.

Follows the events and reads the pools. sd_notify.py knows the protocol. Runs only under a service manager that listens.
"""

import time

import trio

from lbproxy.control.context import ControlContext
from lbproxy.control.sd_notify import Notify
from lbproxy.telemetry.events import (
    BackendReady,
    ConfigRejected,
    Event,
    Notice,
    ReloadFinished,
    ReloadStarted,
    ServeStopping,
)
from lbproxy.telemetry.log import Log, Subscription

EXTEND_S = 20.0  # a stop asks for so much more time, again and again while it goes on
EXTEND_EVERY_S = 5.0
_FOLLOWED = ("backend.", "worker.", "reload.", "config.", "serve.")
_OUTPUT = "backend.output"


class Announcer:
    def __init__(self, notify: Notify, context: ControlContext, log: Log) -> None:
        self._notify = notify
        self._context = context
        self._log = log
        self._said = ""  # the last status
        self._is_ready = False
        self._reloading = ""  # the pools of the reload that runs
        self._failed = 0  # exit code of the last reload
        self._cannot_send = False

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        with self._log.subscribe(_is_followed) as events, self._log.subscribe(_is_ready_event) as ready:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._become_ready, ready)
                if self._notify.watchdog_s is not None:
                    nursery.start_soon(self._feed_watchdog, self._notify.watchdog_s)
                task_status.started()
                await self._say_status()
                async for event in events:
                    if isinstance(event, ServeStopping):
                        await self._stop(event)
                    await self._take(event)

    async def _become_ready(self, ready: Subscription) -> None:
        """READY when a backend serves, or when none has come in time: lbproxy stays up then, too."""
        pools = self._context.settings.pools
        with trio.move_on_after(max((pool.health.start_timeout_s for pool in pools), default=0.0)):
            async for _ in ready:
                break
            await self._context.fleet.wait_applied(self._context.fleet.publish())
            await self._context.workers.wait_all_serving()
        self._is_ready = True
        await self._send("READY=1", self._status())

    async def _feed_watchdog(self, watchdog_s: float) -> None:
        """A worker that is missing is waited for: when none comes back, the service manager starts lbproxy anew."""
        while True:
            await self._context.workers.wait_all_serving()
            await self._send("WATCHDOG=1")
            await trio.sleep(watchdog_s / 2)

    async def _take(self, event: Event) -> None:
        match event:
            case ReloadStarted(_, _, pools):
                self._reloading = ", ".join(pools) or "routes and listeners"
                await self._send("RELOADING=1", _now(), self._status())
            case ReloadFinished(_, exit_code, _):
                self._reloading, self._failed = "", exit_code
                await self._end_reload()
            case ConfigRejected():
                # Type=notify-reload waits for both messages after its signal.
                await self._send("RELOADING=1", _now())
                await self._end_reload()
            case _:
                await self._say_status()

    async def _end_reload(self) -> None:
        """Before the start is over READY is not said: no backend serves yet."""
        if self._is_ready:
            await self._send("READY=1", self._status())
        else:
            await self._say_status()

    async def _say_status(self) -> None:
        before = self._said
        if (status := self._status()) != before:
            await self._send(status)

    def _status(self) -> str:
        ready = ", ".join(
            f"{pool.name} {pool.ready} of {pool.settings.size}" for pool in self._context.fleet.pools.values()
        )
        begin = f"reloading {self._reloading}" if self._reloading else "serving" if self._is_ready else "starting"
        end = f"; the last reload failed (exit code {self._failed})" if self._failed and not self._reloading else ""
        self._said = f"STATUS={begin}: {ready} ready{end}" if ready else f"STATUS={begin}{end}"
        return self._said

    async def _stop(self, stopping: ServeStopping) -> None:
        """Until this task is cancelled. Nothing is said any more but that more time is needed."""
        status = f"STATUS=stopping ({stopping.why}): work in hand has {stopping.grace_s:g}s"
        await self._send("STOPPING=1", status, _extension())
        with trio.move_on_after(stopping.grace_s):
            while True:
                await trio.sleep(EXTEND_EVERY_S)
                await self._send(_extension())
        await trio.sleep_forever()

    async def _send(self, *lines: str) -> None:
        try:
            await self._notify.send(*lines)
        except OSError as exc:
            if not self._cannot_send:
                where = self._notify.where
                self._log.emit(Notice(f"the service manager cannot be told at {where}: {exc.strerror or exc}"))
            self._cannot_send = True


def _is_followed(event: Event) -> bool:
    return event.name.startswith(_FOLLOWED) and event.name != _OUTPUT


def _is_ready_event(event: Event) -> bool:
    return isinstance(event, BackendReady)


def _now() -> str:
    return f"MONOTONIC_USEC={time.monotonic_ns() // 1000}"


def _extension() -> str:
    return f"EXTEND_TIMEOUT_USEC={round(EXTEND_S * 1e6)}"
