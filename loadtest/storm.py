"""Everything at once through lbproxy, every outcome classified.

Phase 1: reloads. Nothing may be lost: every WebSocket that was on a drained backend sees whole frames, the backend's
last words and exactly one 1001, nobody is closed twice by one reload, long transfers and TCP sessions end as they
should. Phase 2: kill -9 of backends and workers, with reloads in between. What was on the victim may be lost within a
second of its death; nothing else, and nothing later.

python loadtest/storm.py --reloads 20 --kills 20 --clients 8 --websockets 200
"""

import random
from argparse import Namespace
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio

import rig
from classify import Client, Exchange, Outcome, Verdict, connect, outcome_of
from exchanges import KINDS, Kind
from sessions import GOING_AWAY, End, tcp_session, websocket
from trouble import Kills, Reloads

CONFIG = """
[proxy]
workers = {workers}

[[listener]]
address = "127.0.0.1:$port"

[[listener]]
name = "tcp"
address = "127.0.0.1:$port2"
mode = "tcp"
pool = "web"

[pool.web]
command = "$origin --port {{port}}"
size = {backends}

[pool.web.health]
path = "/healthz"

[pool.web.reload]
max_surge = {surge}
min_ready = "200ms"

[pool.web.drain]     # slow answers end within the grace of a request, long transfers do not, but they keep moving
request = "2s"
transfer = "60s"
stream = "2s"
websocket = "1s"
goodbye = "3s"
tcp = "10s"

[log]
access = "off"
"""

# The outcomes that exchanges in hand of a killed process may have.
BY_A_KILL = {Outcome.RESET, Outcome.TRUNCATED, Outcome.SERVER_ERROR}
AFTER_A_KILL_S = 1.0
MOST_SHOWN = 20
PUSH_EVERY_S, MOST_PUSHED_PER_S = 0.005, 10_000  # these clients read no more, and give lbproxy some of the CPU
PUSHED, ECHOED, TCP = "WebSocket, pushed to", "WebSocket, echo", "TCP session"


@dataclass(slots=True)
class Storm:
    """All clients and their records."""

    ports: dict[str, int]
    late_s: float
    reload_number: Callable[[], int]
    stop: trio.Event = field(default_factory=trio.Event)
    outcomes: dict[str, Counter[Outcome]] = field(default_factory=dict)
    bad: list[tuple[float, str, Outcome, str]] = field(default_factory=list)  # when it ended, kind, outcome, detail
    resumed: int = 0  # streams that were told goodbye, and taken up again
    messages: int = 0
    push_every_s: float = PUSH_EVERY_S
    delay_s: float = 0.0  # how long these clients themselves were busy, at most: answers were read so much later
    going_away: Counter[tuple[str, int]] = field(default_factory=Counter)  # 1001s by client and reload

    def start(self, nursery: trio.Nursery, *, clients: int, websockets: int) -> None:
        nursery.start_soon(self._watch_delay)
        for kind in KINDS:
            for _ in range(clients):
                nursery.start_soon(self._exchanges, kind)
        for number in range(clients):
            nursery.start_soon(self._again, f"{TCP} {number}", TCP, self._tcp_session)
        self.push_every_s = max(PUSH_EVERY_S, websockets / 2 / MOST_PUSHED_PER_S)
        for number in range(websockets):
            name = ECHOED if number % 2 else PUSHED
            nursery.start_soon(self._again, f"{name} {number}", name, self._websocket)

    async def _watch_delay(self) -> None:
        while not self.stop.is_set():
            due = trio.current_time() + 0.1
            await trio.sleep_until(due)
            self.delay_s = max(self.delay_s, trio.current_time() - due)

    async def _exchanges(self, kind: Kind) -> None:
        """Requests of one kind, one after the other, until the storm is over."""
        client: Client | None = None
        exchange: Exchange | None = None
        while exchange is not None or not self.stop.is_set():
            if client is None:
                client = await connect(self.ports["port"])
            if client is None:
                self._note(kind.name, Verdict(Outcome.REFUSED))
                await trio.sleep(0.1)
                continue
            verdict = await outcome_of(client, exchange or kind.make(), late_s=self.late_s)
            exchange = verdict.rest
            if exchange is not None:
                self.resumed += 1
            else:
                self._note(kind.name, verdict)
            if kind.fresh or client.is_last or verdict.outcome not in (Outcome.OK, Outcome.SERVER_ERROR):
                await trio.aclose_forcefully(client.stream)
                client = None
            await trio.sleep(random.uniform(0, 2 * kind.rest_s))
        if client is not None:
            await trio.aclose_forcefully(client.stream)

    async def _again(self, name: str, kind: str, play: Callable[[str, str], Awaitable[Verdict]]) -> None:
        """Sessions of one client, one after the other: a client that is closed comes back at once."""
        await trio.sleep(random.random())  # not all at once in the beginning
        while not self.stop.is_set():
            verdict = await play(name, kind)
            self._note(kind, verdict)
            if verdict.outcome is not Outcome.OK:
                await trio.sleep(0.1)

    async def _tcp_session(self, name: str, kind: str) -> Verdict:
        return await tcp_session(self.ports["port2"], lasts_s=random.uniform(0.2, 3), late_s=self.late_s)

    async def _websocket(self, name: str, kind: str) -> Verdict:
        every_s = self.push_every_s if kind == PUSHED else 0.0
        verdict, end = await websocket(self.ports["port"], push_every_s=every_s, stop=self.stop, late_s=self.late_s)
        if end is not None:
            self._closed(name, end)
        return verdict

    def _closed(self, name: str, end: End) -> None:
        self.messages += end.messages
        if end.code == GOING_AWAY:
            self.going_away[name, self.reload_number()] += 1

    def _note(self, kind: str, verdict: Verdict) -> None:
        self.outcomes.setdefault(kind, Counter())[verdict.outcome] += 1
        if verdict.outcome is not Outcome.OK:
            self.bad.append((trio.current_time(), kind, verdict.outcome, verdict.detail))

    def tell(self, report: rig.Report) -> None:
        for name in sorted(self.outcomes):
            told = ", ".join(f"{outcome} {count}" for outcome, count in self.outcomes[name].most_common())
            report.line(name, told)
        report.line("streams resumed", self.resumed)
        report.line("clients' own delay", f"at most {self.delay_s:.2f} s")
        report.line("WebSocket messages", f"{self.messages}, and {self.going_away.total()} times 1001")

    def twice(self) -> list[str]:
        """The clients that one reload has closed more than once."""
        return [f"{name} in reload {number}" for (name, number), count in self.going_away.items() if count > 1]


async def phase(lb: rig.Serving, options: Namespace, reloads: Reloads, count: int, kills: Kills | None) -> Storm:
    """Run `count` reloads under the whole load, with or without kills in between."""
    storm = Storm(lb.ports, options.late, lambda: reloads.number)
    async with trio.open_nursery() as clients:
        storm.start(clients, clients=options.clients, websockets=options.websockets)
        await trio.sleep(2)
        async with trio.open_nursery() as trouble:
            trouble.start_soon(reloads.run, count)
            if kills is not None:
                await kills.run(options.kills)
        await trio.sleep(1)
        storm.stop.set()
    return storm


async def under_reloads(lb: rig.Serving, options: Namespace, report: rig.Report) -> None:
    reloads = Reloads(lb, report)
    storm = await phase(lb, options, reloads, options.reloads, None)
    reloads.tell()
    storm.tell(report)
    for _, name, outcome, detail in storm.bad[:MOST_SHOWN]:
        report.promise(False, f"phase 1: {name}: {outcome} {detail}")
    for name in storm.twice()[:MOST_SHOWN]:
        report.promise(False, f"phase 1: closed twice: {name}")
    heard = storm.going_away.total()
    report.promise(heard == reloads.closed, f"phase 1: {heard} times 1001 heard, and {reloads.closed} said")


async def under_kills(lb: rig.Serving, options: Namespace, report: rig.Report) -> None:
    # A backend that dies while it is new makes its reload roll back: that is what a reload is for.
    reloads, kills = Reloads(lb, report, results=("ok", "rolled_back")), Kills(lb)
    storm = await phase(lb, options, reloads, options.kills // 4, kills)
    report.line("kills", len(kills.when))
    reloads.tell()
    storm.tell(report)
    unexplained = [
        (name, outcome, f"{detail}, {kills.since(ended):.2f} s after a kill")
        for ended, name, outcome, detail in storm.bad
        if outcome not in BY_A_KILL or kills.since(ended) > AFTER_A_KILL_S
    ]
    report.line("lost, explained by a kill", len(storm.bad) - len(unexplained))
    for name, outcome, detail in unexplained[:MOST_SHOWN]:
        report.promise(False, f"phase 2: {name}: {outcome} {detail}")
    lb.wait_ready(40)


async def main() -> None:
    options = rig.arguments(__doc__, reloads=20, kills=20, clients=8, websockets=200, late=5.0, surge="100%")
    report = rig.Report("storm")
    with rig.proxied(options, CONFIG) as lb:
        if options.reloads:
            await under_reloads(lb, options, report)
        if options.kills:
            await under_kills(lb, options, report)
    report.end()


if __name__ == "__main__":
    trio.run(main)
