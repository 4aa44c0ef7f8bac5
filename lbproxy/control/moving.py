"""Connections on their way from old workers to new ones. Control passes them on and reads nothing of them.

The old worker holds a connection until the new one has it, and hears which of them that is:

    old      Given            ->  the new worker with the fewest connections gets Take
    new      Taken            ->  old: Released, its lease ends
             Taken, with why  ->  old: Released as not taken, it goes on
             dies before that ->  old: Released, the connection is lost with the new one: it may have moved bytes
    nobody can take it        ->  old: Released as not taken

An old worker that dies does not concern a connection that it has given. Control's own copies of the descriptors are
closed as soon as they are sent.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass

import trio

from lbproxy.control.workers import Workers
from lbproxy.link.messages import GaveAway, Given, Released, Take, Taken
from lbproxy.model import BackendId
from lbproxy.telemetry.events import Event, WorkerGaveAway


@dataclass(frozen=True, slots=True)
class _Move:
    old: int  # worker
    number: int  # of the connection there
    new: int
    backend: BackendId | None


@dataclass(slots=True)
class _Leaver:
    began: float
    moved: int = 0
    refused: int = 0
    why: str = ""  # the first refusal


class Moving:
    def __init__(self, workers: Workers, emit: Callable[[Event], None]) -> None:
        self._workers = workers
        self._emit = emit
        self._moves: dict[int, _Move] = {}  # by the number of their Take
        self._number = 0
        self._sent: dict[int, int] = {}  # how many connections each new worker has got
        self._leavers: dict[int, _Leaver] = {}
        workers.hearers |= {Given: self._given, Taken: self._taken, GaveAway: self._gave_away}
        workers.on_ended = self._ended
        workers.moves_under_way = self._moves.__len__

    def _given(self, old: int, message: Given) -> None:
        fds = self._workers.live[old].channel.take_fds(message.moved.descriptors)
        self._leaver(old)
        takers = [worker for worker in self._workers.live.values() if worker.state == "serving" and worker.id != old]
        if not takers:
            for fd in fds:
                os.close(fd)
            self._release(old, message.number, "no worker can take it")
            return
        worker = min(takers, key=lambda one: one.stats.connections + self._sent.get(one.id, 0))
        self._sent[worker.id] = self._sent.get(worker.id, 0) + 1
        self._number += 1
        relay = message.moved.relay
        backend = relay.lease.backend.id if relay is not None else None
        self._moves[self._number] = _Move(old, message.number, worker.id, backend)
        worker.channel.post(Take(self._number, message.moved), give=fds)

    def _taken(self, new: int, message: Taken) -> None:
        move = self._moves.get(message.number)
        if move is None or move.new != new:
            return
        del self._moves[message.number]
        if move.backend is not None and not message.why:
            self._workers.live[new].take(str(move.backend))
        self._release(move.old, move.number, message.why)

    def _release(self, old: int, number: int, why: str) -> None:
        if (leaver := self._leavers.get(old)) is not None:
            leaver.moved += not why
            leaver.refused += bool(why)
            leaver.why = leaver.why or why
        self._workers.post(old, Released(number, not why))

    def _gave_away(self, old: int, message: GaveAway) -> None:
        leaver = self._leaver(old)
        took_s = trio.current_time() - leaver.began
        why = leaver.why or None
        self._emit(WorkerGaveAway(old, leaver.moved, message.left, round(took_s, 3), leaver.refused, why))

    def _ended(self, worker: int) -> None:
        self._sent.pop(worker, None)
        self._leavers.pop(worker, None)
        for number, move in list(self._moves.items()):
            if move.new == worker:
                del self._moves[number]
                self._workers.post(move.old, Released(move.number, True))

    def _leaver(self, old: int) -> _Leaver:
        return self._leavers.setdefault(old, _Leaver(trio.current_time()))
