"""The trial of a program before it takes over: in a process of its own, on copies of document and descriptors.

It imports every module, reads the document and the configuration, and has a worker apply the table. It accepts no
client, signals no process and writes no file. What is wrong with this version shows here, while the other one serves.
"""

import importlib
import os
import pkgutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec

import trio

import lbproxy
from lbproxy import __version__
from lbproxy.config.user import identity_of
from lbproxy.control.certificates import Certificates
from lbproxy.control.document import DocumentRefused, descriptors, read_document
from lbproxy.control.handed_on import Document
from lbproxy.control.worker_process import worker_command
from lbproxy.link.channel import Channel
from lbproxy.link.codec import LinkBroken
from lbproxy.link.grid import Grid
from lbproxy.link.messages import Applied, Publish, ToControl, Welcome
from lbproxy.model import RoutingTable
from lbproxy.settings import Settings
from lbproxy.supervise.program_copy import child_environment
from lbproxy.telemetry.events import Notice


@dataclass(frozen=True, slots=True)
class Proof:
    """What the program would take over."""

    version: str
    backends: int
    workers: int
    listeners: int


def try_to_take_over(document_fd: int, load: Callable[[], Settings]) -> Proof:
    """Raises DocumentRefused, ConfigInvalid, and what an import raises."""
    import_everything()
    document = read_document(document_fd)
    for fd in descriptors(document):
        try:
            os.fstat(fd)
        except OSError as exc:
            raise DocumentRefused(f"descriptor {fd} of the document is not open: {exc.strerror}") from None
    load()
    Certificates(document.settings)
    trio.run(_have_applied, document)
    backends = sum(member.runner.pid is not None for pool in document.fleet.pools for member in pool.members)
    return Proof(__version__, backends, len(document.workers.workers), len(document.sockets.bound))


def import_everything() -> None:
    """Every module of the package, so that none is missing or broken when it is needed. Those that order certificates
    only where their libraries are installed."""
    orders = all(find_spec(library) is not None for library in ("acme", "josepy"))
    for module in pkgutil.walk_packages(lbproxy.__path__, "lbproxy."):
        if orders or not module.name.startswith("lbproxy.acme."):
            importlib.import_module(module.name)


async def _have_applied(document: Document) -> None:
    """A worker of this version applies the table: without sockets, so it accepts nobody. Raises DocumentRefused."""
    grid = Grid.create(1, document.grid.cells)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    channel = Channel(ours, ToControl)
    with theirs:
        process = await trio.lowlevel.open_process(
            [*worker_command(identity_of(document.settings.proxy.user)), str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno(),
            pass_fds=[theirs.fileno()],
            env=child_environment(os.environ),
        )
    try:
        channel.post(Welcome(1, 1, document.grid.cells, "json"), [grid.fd])
        channel.post(Publish(_quiet(document.table), ()))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.run_writer)
            why = await _why_not_applied(channel, document.table.epoch)
            nursery.cancel_scope.cancel()
    finally:
        channel.close()  # the worker ends with its link
        with trio.CancelScope(shield=True):
            await process.wait()
    if why is not None:
        raise DocumentRefused(f"a worker of this version does not apply the table ({why})")


async def _why_not_applied(channel: Channel, epoch: int) -> str | None:
    said = "it ended without a word"
    try:
        while (message := await channel.receive()) is not None:
            if isinstance(message, Applied) and message.epoch == epoch:
                return None
            if isinstance(message, Notice):
                said = message.text
    except LinkBroken as exc:
        return f"it talks nonsense: {exc}"
    return said


def _quiet(table: RoutingTable) -> RoutingTable:
    return replace(table, access="off")
