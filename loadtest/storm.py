"""Everything at once through lbproxy, every outcome classified.

Phase 1: reloads. Nothing may be lost. Phase 2: kill -9 of backends and workers, with reloads in between. What was on
the victim may be lost within a second of its death; nothing else, and nothing later.

python loadtest/storm.py --reloads 20 --kills 20 --clients 8
"""

import contextlib
import os
import random
import re
import signal
import zlib
from argparse import Namespace
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import trio

import rig
from classify import Client, Exchange, Outcome, Verdict, connect, outcome_of

# What may happen to the exchanges that a killed process had in hand.
BY_A_KILL = {Outcome.RESET, Outcome.TRUNCATED, Outcome.SERVER_ERROR}
AFTER_A_KILL_S = 1.0
MOST_SHOWN = 20


def get(target: str, right: Callable[[bytes], bool], *, lasts_s: float = 0.0) -> Exchange:
    return Exchange([f"GET {target} HTTP/1.1\r\nHost: storm\r\n\r\n".encode()], right, lasts_s)


def small() -> Exchange:
    return get("/", b"Hello world\n".__eq__)


def medium() -> Exchange:
    return get("/64k", lambda body: len(body) == 65536)


def chunked() -> Exchange:
    return get("/chunked?n=30&bytes=700", (b"c" * 21_000).__eq__)


def post() -> Exchange:
    body = random.randbytes(random.randrange(1, 50_000))
    head = b"POST /sum HTTP/1.1\r\nHost: storm\r\nContent-Length: %d\r\n\r\n" % len(body)
    return Exchange([head + body], _sum_of(body))


def chunked_upload() -> Exchange:
    parts = [random.randbytes(random.randrange(1, 9_000)) for _ in range(10)]
    pieces = [b"POST /sum HTTP/1.1\r\nHost: storm\r\nTransfer-Encoding: chunked\r\n\r\n"]
    pieces += [b"%x\r\n%b\r\n" % (len(part), part) for part in parts]
    return Exchange([*pieces, b"0\r\n\r\n"], _sum_of(b"".join(parts)), lasts_s=0.5, pause_s=0.05)


def _sum_of(body: bytes) -> Callable[[bytes], bool]:
    return (b"%d %08x\n" % (len(body), zlib.crc32(body))).__eq__


def slow() -> Exchange:
    seconds = random.choice((0.2, 0.5, 1.0, 2.0))
    return get(f"/slow?s={seconds}", b"slept\n".__eq__, lasts_s=seconds)


EVENTS = 10


def sse(last: int = 0) -> Exchange:
    """Shorter than the grace of a stream. A drain may still end it behind a whole event, to spread the goodbyes: then
    it is taken up behind the `last` event that came, as EventSource does. Every id comes once and in order."""

    def ids(body: bytes) -> list[int]:
        return [int(number) for number in re.findall(rb"id: (\d+)\ndata: .*\n\n", body)]

    def right(body: bytes) -> bool:
        return body.count(b"\n\n") == len(ids(body)) and ids(body) == [*range(last + 1, last + 1 + len(ids(body)))]

    def rest(body: bytes) -> Exchange | None:
        come = last + len(ids(body))
        return sse(come) if come < EVENTS else None

    head = f"GET /sse?n={EVENTS}&every=0.1 HTTP/1.1\r\nHost: storm\r\nLast-Event-ID: {last}\r\n\r\n"
    return Exchange([head.encode()], right, lasts_s=1.0, rest=rest)


@dataclass(frozen=True, slots=True)
class Kind:
    name: str
    make: Callable[[], Exchange]
    fresh: bool = False  # a connection for each request
    rest_s: float = 0.02


KINDS = (
    Kind("keep-alive GET", small),
    Kind("fresh GET", small, fresh=True),
    Kind("64 KiB GET", medium),
    Kind("chunked GET", chunked, fresh=True),
    Kind("POST", post),
    Kind("fresh POST", post, fresh=True),
    Kind("chunked upload", chunked_upload),
    Kind("slow answer", slow),
    Kind("SSE", sse, fresh=True),
)


@dataclass(slots=True)
class Storm:
    port: int
    late_s: float
    stop: trio.Event = field(default_factory=trio.Event)
    outcomes: dict[str, Counter[Outcome]] = field(default_factory=lambda: {kind.name: Counter() for kind in KINDS})
    bad: list[tuple[float, str, Outcome, str]] = field(default_factory=list)  # when it ended, kind, outcome, detail
    resumed: int = 0  # streams that were told goodbye, and taken up again

    async def client(self, kind: Kind) -> None:
        """Requests of one kind, one after the other, until the storm is over."""
        client: Client | None = None
        exchange: Exchange | None = None
        while exchange is not None or not self.stop.is_set():
            if client is None:
                client = await connect(self.port)
            if client is None:
                self._note(kind, Verdict(Outcome.REFUSED))
                await trio.sleep(0.1)
                continue
            verdict = await outcome_of(client, exchange or kind.make(), late_s=self.late_s)
            exchange = verdict.rest
            if exchange is not None:
                self.resumed += 1
            else:
                self._note(kind, verdict)
            if kind.fresh or verdict.outcome not in (Outcome.OK, Outcome.SERVER_ERROR):
                await trio.aclose_forcefully(client.stream)
                client = None
            await trio.sleep(random.uniform(0, 2 * kind.rest_s))
        if client is not None:
            await trio.aclose_forcefully(client.stream)

    def _note(self, kind: Kind, verdict: Verdict) -> None:
        self.outcomes[kind.name][verdict.outcome] += 1
        if verdict.outcome is not Outcome.OK:
            self.bad.append((trio.current_time(), kind.name, verdict.outcome, verdict.detail))


async def reloads(lb: rig.Serving, count: int, report: rig.Report, *, results: tuple[str, ...] = ("ok",)) -> None:
    took = []
    for number in range(1, count + 1):
        done = await rig.reload(lb)
        took.append(done.took_s)
        kept = done.verdict.get("result") in results and (results != ("ok",) or done.ok)
        report.promise(kept, f"reload {number}: {done.exit_code}: {done.text[-600:]}")
        await trio.sleep(0.2)
    if took:
        report.line("reloads", f"{count}, {min(took):.1f} to {max(took):.1f} s each")


async def kills(lb: rig.Serving, count: int) -> list[float]:
    """kill -9 of a backend or a worker, one every two seconds or so. Returns when."""
    when = []
    for number in range(count):
        status = await trio.to_thread.run_sync(lb.status)
        backends = [one["pid"] for one in status["pools"]["web"]["backends"] if one["state"] == "ready"]
        workers = [one["pid"] for one in status["workers"]]
        victims = workers if number % 2 else backends
        if victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(random.choice(victims), signal.SIGKILL)
                when.append(trio.current_time())
        await trio.sleep(random.uniform(1.5, 2.5))
    return when


async def phase(
    lb: rig.Serving, options: Namespace, report: rig.Report, *, kill: int, reload: int
) -> tuple[Storm, list[float]]:
    storm, killed = Storm(lb.port, options.late), []
    async with trio.open_nursery() as clients:
        for kind in KINDS:
            for _ in range(options.clients):
                clients.start_soon(storm.client, kind)
        await trio.sleep(1)
        async with trio.open_nursery() as trouble:
            # A backend that dies while it is new makes its reload roll back: that is what a reload is for.
            allowed = ("ok", "rolled_back") if kill else ("ok",)
            trouble.start_soon(lambda: reloads(lb, reload, report, results=allowed))
            killed = await kills(lb, kill)
        await trio.sleep(1)
        storm.stop.set()
    return storm, killed


def tell(storm: Storm, report: rig.Report) -> None:
    for name, counter in storm.outcomes.items():
        report.line(name, ", ".join(f"{outcome} {count}" for outcome, count in counter.most_common()) or "nothing")
    report.line("streams resumed", storm.resumed)


async def main() -> None:
    options = rig.arguments(__doc__, reloads=20, kills=20, clients=8, late=5.0)
    report = rig.Report("storm")
    with rig.proxied(options) as lb:
        if options.reloads:
            storm, _ = await phase(lb, options, report, kill=0, reload=options.reloads)
            tell(storm, report)
            for _, name, outcome, detail in storm.bad[:MOST_SHOWN]:
                report.promise(False, f"phase 1: {name}: {outcome} {detail}")
        if options.kills:
            storm, killed = await phase(lb, options, report, kill=options.kills, reload=options.kills // 4)
            report.line("kills", len(killed))
            tell(storm, report)
            unexplained = [
                (name, outcome, detail)
                for ended, name, outcome, detail in storm.bad
                if outcome not in BY_A_KILL or not any(0 <= ended - at <= AFTER_A_KILL_S for at in killed)
            ]
            report.line("lost, explained by a kill", len(storm.bad) - len(unexplained))
            for name, outcome, detail in unexplained[:MOST_SHOWN]:
                report.promise(False, f"phase 2: {name}: {outcome} {detail}")
            lb.wait_ready(10)
    report.end()


if __name__ == "__main__":
    trio.run(main)
