"""Tell the service manager what lbproxy does: ready, reloading, stopping, and one sentence of status.

Follows the events and reads the pools. sd_notify.py knows the protocol. Runs only under a service manager that listens.
"""

import time

import trio

from lbproxy.control.context import ControlContext
from lbproxy.control.pool import Pool
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

EXTEND_S = 20.0  # a stop asks for so much more time, again and again while it goes on; a start, beyond its timeout
EXTEND_EVERY_S = 5.0
_FOLLOWED = ("backend.", "worker.", "reload.", "pool.", "config.", "serve.")
_OUTPUT = "backend.output"
_RELOADS = ("reload", "rollback")  # a unit "reloads"; any other change is only in the status
_HALF_WAY = 9


class Announcer:
    def __init__(self, notify: Notify, context: ControlContext, log: Log, is_ready: bool = False) -> None:
        """`is_ready`: the service manager was told so by the program before."""
        self._notify = notify
        self._context = context
        self._log = log
        self._said = ""  # the last status
        self._is_ready = is_ready
        self._running: dict[str, ReloadStarted] = {}  # by id
        self._failed = 0  # exit code of the last change
        self._cannot_send = False

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        with self._log.subscribe(_is_followed) as events, self._log.subscribe(_is_ready_event) as ready:
            task_status.started()
            async with trio.open_nursery() as nursery:
                if self._is_ready:
                    # The exec and the imports have taken a part of the watchdog's time, and new workers take theirs.
                    fed = () if self._notify.watchdog_s is None else ("WATCHDOG=1",)
                    await self._send(*fed, self._status())
                else:
                    await self._send(self._status(), _extension(self._longest_start_s() + EXTEND_S))
                    nursery.start_soon(self._become_ready, ready)
                if self._notify.watchdog_s is not None:
                    nursery.start_soon(self._feed_watchdog, self._notify.watchdog_s)
                async for event in events:
                    if isinstance(event, ServeStopping):
                        await self._stop(event)
                    await self._take(event)

    async def _become_ready(self, ready: Subscription) -> None:
        """READY when a backend serves, or when none has come in time: lbproxy stays up then, too."""
        with trio.move_on_after(self._longest_start_s()):
            async for _ in ready:
                break
            await self._context.fleet.wait_applied(self._context.fleet.publish())
            await self._context.workers.wait_all_serving()
        self._is_ready = True
        await self._send("READY=1", self._status())

    def _longest_start_s(self) -> float:
        return max((pool.health.start_timeout_s for pool in self._context.settings.pools), default=0.0)

    async def _feed_watchdog(self, watchdog_s: float) -> None:
        """A worker that is missing is waited for: when none comes back, the service manager starts lbproxy anew."""
        while True:
            await self._context.workers.wait_all_serving()
            await self._send("WATCHDOG=1")
            await trio.sleep(watchdog_s / 2)

    async def _take(self, event: Event) -> None:
        match event:
            case ReloadStarted():
                self._running[event.reload] = event
                if event.verb in _RELOADS:
                    await self._send("RELOADING=1", _now(), self._status())
                else:
                    await self._say_status()
            case ReloadFinished(reload, exit_code, _):
                self._failed = exit_code
                started = self._running.pop(reload, None)
                if started is not None and started.verb in _RELOADS:
                    await self._end_reload()
                else:
                    await self._say_status()
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
        pools = ", ".join(_state(pool) for pool in self._context.fleet.pools.values())
        verbs = [f"{one.verb} of {', '.join(one.pools) or 'listeners and routes'}" for one in self._running.values()]
        doing = ", ".join(verbs) or ("serving" if self._is_ready else "starting")
        last = ""
        if self._failed == _HALF_WAY and not verbs:
            last = "; half-way: lbproxy resume, abort or rollback goes on"
        elif self._failed and not verbs:
            last = f"; the last change failed (exit code {self._failed})"
        self._said = f"STATUS={doing}: {pools}{last}" if pools else f"STATUS={doing}{last}"
        return self._said

    async def _stop(self, stopping: ServeStopping) -> None:
        """Until this task is cancelled. Nothing is said any more but that more time is needed."""
        status = f"STATUS=stopping ({stopping.why}): work in hand has {stopping.grace_s:g}s"
        await self._send("STOPPING=1", status, _extension(EXTEND_S))
        with trio.move_on_after(stopping.grace_s):
            while True:
                await trio.sleep(EXTEND_EVERY_S)
                await self._send(_extension(EXTEND_S))
        await trio.sleep_forever()

    async def _send(self, *lines: str) -> None:
        try:
            await self._notify.send(*lines)
        except OSError as exc:
            if not self._cannot_send:
                where = self._notify.where
                self._log.emit(Notice(f"the service manager cannot be told at {where}: {exc.strerror or exc}"))
            self._cannot_send = True


def _state(pool: Pool) -> str:
    paused = "" if pool.pause is None else " (maintenance)" if pool.pause.page is not None else " (paused)"
    return f"{pool.name} {pool.ready} of {pool.size} ready{paused}"


def _is_followed(event: Event) -> bool:
    return event.name.startswith(_FOLLOWED) and event.name != _OUTPUT


def _is_ready_event(event: Event) -> bool:
    return isinstance(event, BackendReady)


def _now() -> str:
    return f"MONOTONIC_USEC={time.monotonic_ns() // 1000}"


def _extension(more_s: float) -> str:
    return f"EXTEND_TIMEOUT_USEC={round(more_s * 1e6)}"
