"""`lbproxy upgrade`: the installed program is tried, then executed in place of this one, with the same pid.

Before the exec whatever breaks means that nothing has happened. After it there is no old program: what breaks then is a
crash of control, and the guard ends everything. `finish` is the part of the program after it.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import trio

from lbproxy import __version__
from lbproxy.control import old_workers
from lbproxy.control.api_server import ApiServer
from lbproxy.control.audit import Audit
from lbproxy.control.change_ids import ChangeIds
from lbproxy.control.context import ControlContext
from lbproxy.control.document import descriptors, write_document
from lbproxy.control.handed_on import Document, HandedUpgrade
from lbproxy.control.listening_socket import taken_socket
from lbproxy.control.program import Program
from lbproxy.control.program_trial import TRIAL_S, Trial, TrialFailed, run_trial
from lbproxy.control.reloader import ReloadBusy, Reloader
from lbproxy.control.succession import Succession
from lbproxy.control.upgrade_stream import UpgradeStream
from lbproxy.errors import LbproxyError
from lbproxy.model import LeaseKind
from lbproxy.policy.goodbye import longest_s
from lbproxy.supervise.private_directory import PrivateDirectory
from lbproxy.supervise.resources import Resources
from lbproxy.telemetry.events import UpgradeDone, UpgradeProved, UpgradeStarted
from lbproxy.telemetry.log import Log

SETTLE_S = 30.0  # for a backend that is being started or stopped right now
FLUSH_S = 1.0  # for lines and events that are on their way out
LOOK_S = 0.01
HANDLED_TURNS = 5  # of Trio: a signal takes two or three until control has handled it
FAILED = 5  # exit code: nothing has happened


class CannotUpgrade(LbproxyError):
    """An upgrade cannot begin now."""


@dataclass(frozen=True, slots=True)
class Site:
    """What an upgrade needs of control."""

    program: Program
    log: Log
    resources: Resources
    reloader: Reloader
    ids: ChangeIds
    succession: Succession
    passed: Sequence[int]  # descriptors of the service manager
    signals: Sequence[signal.Signals]  # that control handles
    audit: Audit
    is_stopping: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Wish:
    """The arguments of the command."""

    timeout_s: float | None = None
    tunnels_s: float = 0.0
    asked_by: Mapping[str, int | str] | None = None
    client_fd: int = -1


class Upgrader:
    def __init__(self, site: Site) -> None:
        self._site = site
        self._nursery: trio.Nursery | None = None
        self._stream: UpgradeStream | None = None
        self.api_server: ApiServer | None = None
        self._leaving: str | None = None  # an upgrade whose old workers are not gone yet

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Home of an upgrade. It is cancelled with control."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    def cancel(self) -> None:
        """lbproxy is being stopped. An upgrade that is still tried fails, and its command is told why."""
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()

    def start(self, wish: Wish) -> UpgradeStream:
        """Raises ReloadBusy and CannotUpgrade."""
        site = self._site
        if self._nursery is None or site.is_stopping():
            raise CannotUpgrade("lbproxy is being stopped")
        if self._leaving is not None:
            raise ReloadBusy(f"{self._leaving}: old workers still have connections")
        if not site.program.words:
            raise CannotUpgrade("it is not known how this lbproxy was started")
        id = f"u{site.ids.last().get('u', 0) + 1}"
        site.reloader.hold(_running(id))
        site.ids.next("u")
        stream = self._stream = UpgradeStream(site.log, id, wish.client_fd)
        self._nursery.start_soon(self._carry_out, id, wish, stream)
        return stream

    async def _carry_out(self, id: str, wish: Wish, stream: UpgradeStream) -> None:
        site, began = self._site, time.monotonic()
        asked_by = dict(wish.asked_by) if wish.asked_by is not None else None
        site.log.emit(UpgradeStarted(id, __version__, asked_by))
        why = "lbproxy is being stopped"
        output: tuple[str, ...] = ()
        try:
            why, output = await self._try_and_execute(id, wish, stream, began)
        except Exception as exc:  # a mistake of ours, which must not end control
            why = f"lbproxy made a mistake: {exc!r}"
        finally:
            took_s = time.monotonic() - began
            self._say(UpgradeDone(id, "failed", FAILED, __version__, __version__, took_s, why, output, asked_by))
            site.reloader.let_go()

    async def _try_and_execute(
        self, id: str, wish: Wish, stream: UpgradeStream, began: float
    ) -> tuple[str, tuple[str, ...]]:
        """Returns only if nothing has happened: why, and the last output of the program."""
        site = self._site
        handed = HandedUpgrade(id, __version__, began, wish.tunnels_s, -1, wish.asked_by)
        if (why := await self._settle()) is not None:
            return why, ()
        document = site.succession.hand_on(handed)
        document_fd = write_document(document)
        try:
            fds = (document_fd, *descriptors(document))
            environ = site.program.trial_environment(document_fd)
            limit_s = TRIAL_S if wish.timeout_s is None else wish.timeout_s
            said = await run_trial(Trial(site.program.words, environ, fds, limit_s), site.resources)
        except TrialFailed as exc:
            return exc.why, exc.output
        finally:
            os.close(document_fd)
        proved = UpgradeProved(
            *(id, str(said["version"]), time.monotonic() - began), _number(said, "backends"), _number(said, "workers")
        )
        site.log.emit(proved)
        with self._commands_waiting():
            while (why := await self._settle()) is None:
                with self._signals_kept():
                    for _ in range(HANDLED_TURNS):
                        await trio.lowlevel.checkpoint()  # signals that came before are handled
                    if site.succession.unsettled() is None and not site.is_stopping():
                        try:
                            self._execute(handed, stream)
                        except OSError as exc:
                            why = f"the installed program cannot be executed: {exc.strerror or exc}"
                            break
        return why, ()

    # The program after the exec

    def take_over(self, handed: HandedUpgrade) -> None:
        """Before anything else: a signal that has waited for this program finds the upgrade running."""
        self._leaving = _running(handed.id)
        self._site.reloader.hold(self._leaving)
        if handed.again is not None:
            self._site.reloader.signal(handed.again)
        self._stream = UpgradeStream(self._site.log, handed.id, handed.client_fd)

    async def finish(self, document: Document, context: ControlContext, api_server: ApiServer) -> None:
        """The upgrade that has made this program goes on: the new workers serve, then the old ones leave. Returns when
        the last one is gone. From `take_over` until the old ones are told to leave no other change of the pools begins.
        """
        site, handed, workers = self._site, document.upgrade, context.workers
        stream = self._stream
        assert stream is not None
        async with trio.open_nursery() as nursery:
            if handed.client_fd >= 0:
                client = trio.socket.from_stdlib_socket(taken_socket(handed.client_fd))
                nursery.start_soon(api_server.go_on, client, stream.lines())
            await old_workers.wait_new_serving(workers)
            graces_s = [longest_s(pool.drain, LeaseKind) for pool in context.settings.pools]
            old_workers.tell_to_leave(workers, max(graces_s, default=0.0), handed.tunnels_s)
            site.reloader.let_go()
            await old_workers.wait_old_gone(workers)
            if document.copy is not None:
                PrivateDirectory.take_over(document.copy).close()
            took_s = time.monotonic() - handed.began_at
            self._say(
                UpgradeDone(handed.id, "ok", 0, handed.from_version, __version__, took_s, asked_by=handed.asked_by)
            )
        stream.close()
        self._leaving = None

    def _say(self, done: UpgradeDone) -> None:
        what = {"id": done.upgrade, "from_version": done.from_version, "version": done.version}
        self._site.audit.note(done.asked_by or {}, "upgrade", what, done.result)
        self._site.log.emit(done)

    async def _settle(self) -> str | None:
        """Wait until everything can be handed on, and what is on its way out is out. Why not, if it cannot."""
        site = self._site
        with trio.move_on_after(SETTLE_S):
            # Looks now and then: no single part could tell, and it is a matter of milliseconds.
            while site.succession.unsettled() is not None:  # noqa: ASYNC110
                await trio.sleep(LOOK_S)
        if (why := site.succession.unsettled()) is not None:
            return why
        with trio.move_on_after(FLUSH_S):
            while not self._is_flushed():  # noqa: ASYNC110
                await trio.sleep(LOOK_S)
        return None

    def _is_flushed(self) -> bool:
        """Every line is written, and no command but this one waits for an answer (or none that was asked long ago)."""
        stream, api_server = self._stream, self.api_server
        is_read = stream is None or stream.is_idle
        is_written = self._site.log.is_written and self._site.audit.is_written
        return is_written and is_read and (api_server is None or api_server.connections <= 1)

    def _execute(self, handed: HandedUpgrade, stream: UpgradeStream) -> None:
        """Returns never, or raises OSError. No await: what is handed on is what is true at the exec."""
        site = self._site
        document = site.succession.hand_on(
            HandedUpgrade(
                *(handed.id, handed.from_version, handed.began_at, handed.tunnels_s, stream.client_fd, handed.asked_by),
                again=site.reloader.again,
            )
        )
        site.succession.memory.flush()
        document_fd = write_document(document)
        try:
            site.program.execute(document_fd, [*descriptors(document), *site.passed])
        finally:
            os.close(document_fd)

    @contextlib.contextmanager
    def _commands_waiting(self) -> Iterator[None]:
        """Further commands are answered by the next program."""
        if self.api_server is not None:
            self.api_server.pause()
        try:
            yield
        finally:
            if self.api_server is not None:
                self.api_server.resume()

    @contextlib.contextmanager
    def _signals_kept(self) -> Iterator[None]:
        """Signals are blocked, so that they wait over the exec for the handlers of the next program.

        Another thread may still take one. It is sent anew to this thread, where it waits, too.
        """
        main = threading.main_thread().ident
        assert main is not None

        def send_anew(number: int, frame: object) -> None:
            signal.pthread_kill(main, number)

        before = {number: signal.getsignal(number) for number in self._site.signals}
        signal.pthread_sigmask(signal.SIG_BLOCK, self._site.signals)
        for number in self._site.signals:
            signal.signal(number, send_anew)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, self._site.signals)


def _running(id: str) -> str:
    return f"an upgrade of lbproxy is running ({id})"


def _number(said: Mapping[str, Any], name: str) -> int:
    value = said.get(name)
    return value if isinstance(value, int) else 0
