"""Certificates by ACME: keeps the process that orders them running, has workers answer its challenges, and says how the
orders stand.

Knows messages (acme/messages.py) and a process. Does not know the protocol; the files come back by way of rotation.
"""

import os
import subprocess
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import trio

from lbproxy.acme.messages import MOST_LINE_BYTES, Challenges, Message, Order, Served, Standing, Wanted, decode, encode
from lbproxy.control.acme_process import COMMAND, environment, ordered
from lbproxy.control.fleet import Fleet
from lbproxy.policy.backoff import delay_s
from lbproxy.settings import Settings, TlsSettings
from lbproxy.telemetry.events import CertificateRejected, Event, Notice
from lbproxy.telemetry.text import iso_time

RESPAWN_S, RESPAWN_MAX_S = 1.0, 60.0
APPLIED_S = 10.0  # a worker that does not answer for longer is hung, and about to be replaced
END_S = 2.0
_RECEIVE_BYTES = 65536


class CertificateOrders:
    def __init__(self, fleet: Fleet, emit: Callable[[Event], None]) -> None:
        self._fleet = fleet
        self._emit = emit
        self._settings: Settings | None = None
        self._orders: tuple[Order, ...] = ()
        self._changed = trio.Event()
        self._standing: dict[str, Standing] = {}  # by file
        self._said: dict[str, str] = {}  # by file: the failure that was told last
        self._challenges: dict[int, tuple[tuple[str, str], ...]] = {}

    def apply(self, settings: Settings) -> None:
        """Order what these settings want. An order that has failed is tried again."""
        self._settings = settings
        self._orders = tuple(dict.fromkeys(_order(tls) for tls in ordered(settings)))
        wanted = {order.file for order in self._orders}
        self._standing = {file: standing for file, standing in self._standing.items() if file in wanted}
        self._changed.set()

    def facts(self, tls: TlsSettings) -> dict[str, Any] | None:
        """How the order stands, for `status`; None where nothing is ordered."""
        if tls.acme is None:
            return None
        standing = self._standing.get(tls.certs[0].cert)
        facts: dict[str, Any] = {"domains": list(tls.acme.domains), "server": tls.acme.server, "state": "starting"}
        if standing is not None:
            facts["state"] = standing.state
            if standing.why:
                facts["why"] = standing.why
            if standing.next_at is not None:
                facts["next_try"] = iso_time(standing.next_at)
        return facts

    async def run(self) -> None:
        """Keep the process running as long as there is something to order."""
        deaths = 0
        while True:
            while not self._orders:
                await self._wait_changed()
            began = trio.current_time()
            why = await self._run_once()
            await self._withdraw()
            if why is None:
                continue
            deaths = 1 if trio.current_time() - began > RESPAWN_MAX_S else deaths + 1
            pause_s = delay_s(deaths, RESPAWN_S, RESPAWN_MAX_S, 0.0)
            self._emit(Notice(f"the process that orders certificates {why}: another is started in {pause_s:g}s"))
            await trio.sleep(pause_s)

    async def _wait_changed(self) -> None:
        await self._changed.wait()
        self._changed = trio.Event()

    async def _run_once(self) -> str | None:
        """How it ended; None: nothing is wanted any more."""
        try:
            process = await trio.lowlevel.open_process(
                COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env=environment(os.environ),
                start_new_session=True,
                umask=0o077,
            )
        except OSError as exc:
            return f"cannot be started ({exc})"
        assert process.stdin is not None
        assert process.stdout is not None
        why: str | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._tell, process.stdin, nursery.cancel_scope)
                why = await self._listen(process.stdin, process.stdout)
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                with trio.move_on_after(END_S):
                    await process.stdin.aclose()  # it ends with its link
                    await process.wait()
                process.kill()
                await process.wait()
                await process.stdout.aclose()
        return why

    async def _tell(self, link: trio.abc.SendStream, running: trio.CancelScope) -> None:
        while self._orders:
            self._changed = trio.Event()
            try:
                await link.send_all(encode(Wanted(self._orders)))
            except trio.BrokenResourceError:
                return  # _listen says why
            await self._changed.wait()
        running.cancel()

    async def _listen(self, link: trio.abc.SendStream, said: trio.abc.ReceiveStream) -> str:
        received = b""
        while data := await said.receive_some(_RECEIVE_BYTES):
            *lines, received = (received + bytes(data)).split(b"\n")
            if len(received) > MOST_LINE_BYTES:
                return "talks nonsense"
            for line in lines:
                try:
                    await self._take(decode(line), link)
                except ValueError as exc:
                    return f"talks nonsense ({exc})"
                except trio.BrokenResourceError:
                    break
        return "has ended"

    async def _take(self, message: Message, link: trio.abc.SendStream) -> None:
        match message:
            case Challenges(number, answers):
                if answers:
                    self._challenges[number] = answers
                elif self._challenges.pop(number, None) is None:
                    return
                await self._publish()
                if answers:
                    await link.send_all(encode(Served(number)))
            case Standing():
                self._note(message)

    async def _publish(self) -> None:
        """Returns when every worker answers the challenges that there are now."""
        self._fleet.challenges = tuple(one for answers in self._challenges.values() for one in answers)
        with trio.move_on_after(APPLIED_S):
            await self._fleet.wait_applied(self._fleet.publish())

    async def _withdraw(self) -> None:
        if self._challenges:
            self._challenges = {}
            await self._publish()

    def _note(self, standing: Standing) -> None:
        file = standing.file
        if file not in {order.file for order in self._orders}:
            return
        self._standing[file] = standing
        if standing.state == "waiting":
            self._said.pop(file, None)
        if standing.state == "failed" and self._said.get(file) != standing.why:
            self._said[file] = standing.why
            again = f"; next try {iso_time(standing.next_at)[:19]}Z" if standing.next_at is not None else ""
            self._emit(CertificateRejected(file, f"could not be ordered: {standing.why}{again}", self._listeners(file)))

    def _listeners(self, file: str) -> tuple[str, ...]:
        settings = self._settings
        if settings is None:
            return ()
        tables = [(listener.name, listener.tls) for listener in settings.listeners]
        if settings.admin is not None:
            tables.append(("admin", settings.admin.tls))
        return tuple(name for name, tls in tables if tls is not None and tls.acme and tls.certs[0].cert == file)


def _order(tls: TlsSettings) -> Order:
    assert tls.acme is not None
    return Order(file=tls.certs[0].cert, **asdict(tls.acme))
