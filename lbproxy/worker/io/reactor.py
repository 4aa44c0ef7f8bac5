"""Readiness and deadlines for the steady states: one epoll inside one Trio task (DESIGN.md 4).

The only module that knows epoll. A descriptor is registered with a handler, whose `on_ready` is called with the event
mask; handlers run one after the other in this task and never wait. Trio is asked only whether the epoll itself is
readable, once per batch, so an event costs what epoll costs plus a share of one trip through Trio's loop.

Deadlines are lazy. Each item keeps its own `deadline`; a heap keeps at most one live entry per item, at or before that
deadline and never more than LOOK_S ahead. Putting a deadline off is one comparison; only a deadline that comes sooner
is pushed. And an item whose timeouts are not shorter than LOOK_S need not even compare: it says AT_LOOK, and works its
deadline out when it is asked. (Not a FIFO per timeout value: an item that is put back at a FIFO's end waits behind
younger ones and may fire as late as twice its time.)
"""

import itertools
import os
import select
import time
import traceback
from collections import deque
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Protocol

import trio

from lbproxy.telemetry.events import Event, Notice

READ = select.EPOLLIN | select.EPOLLRDHUP
WRITE = select.EPOLLOUT
ERROR = select.EPOLLERR
HANGUP = select.EPOLLHUP
DATA = select.EPOLLIN  # alone: neither an end nor an error
LAST = select.EPOLLRDHUP  # the peer's end stands behind what can be read
EDGE = select.EPOLLET  # with others: told once, also of bytes that stay where they are

BATCH_EVENTS = 64  # handled before Trio's tasks get their turn
CROWD = 8  # with so many ready, answers go first the next time,
CROWD_EVENTS = 32  # and of the others only so many have a turn: else answers wait, and take connections meanwhile
TURN_S = 0.01  # the longest before Trio's tasks get their turn,
TASKS_TURN_S = 0.001  # and if the task lane has any, or work is deferred: answers may wait in it to be sent
# The longest that nothing happens in a turn. Not less than the kernel's own tick: a shorter wait has it set a timer for
# each, which costs 10 us (one connection, one request at a time: 1.59 times nginx's CPU with 1 ms, 1.30 with 4 ms).
LINGER_S = 0.004
TICK_S = 0.1  # how late a deadline may be noticed
DOZE_LATE_S = TICK_S / 2  # where nothing happens: neighbours go along, and a task of the same moment comes first
NEVER = float("inf")
LOOK_S = 60.0  # not more than the usual timeouts of a client and of an answer, see AT_LOOK
AT_LOOK = 0.0  # a deadline: `on_deadline` is called within LOOK_S, and says itself whether it is time


class Handler(Protocol):
    """Registered itself, not its method: a method is an object, and that of a connection is in no processor's cache.

    If it has an `abort()`, that is called after an exception.
    """

    def on_ready(self, mask: int) -> None: ...


class FunctionHandler:
    """A handler that calls a function: for phases that are rare or short."""

    __slots__ = ("on_ready",)

    def __init__(self, on_ready: Callable[[int], None]) -> None:
        self.on_ready = on_ready

    def abort(self) -> None:
        abort = getattr(getattr(self.on_ready, "__self__", None), "abort", None)
        if abort is not None:
            abort()


class Timed(Protocol):
    """What has a deadline. Begin with both at NEVER; only the reactor writes them."""

    deadline: float
    queued_at: float

    def on_deadline(self) -> None: ...


class Reactor:
    """Register, modify and unregister from handlers or tasks of this thread alike.

    What leaves must be unregistered before it is closed or handed to a task: a descriptor that stays, even with an
    empty mask, reports hang-ups and spins. A handler may be called although there is nothing to do: a descriptor that
    was closed and opened anew within a batch can get its predecessor's event.
    """

    def __init__(self, emit: Callable[[Event], None]) -> None:
        self._emit = emit
        self._epoll = select.epoll()
        # Backends' descriptors are in an epoll of their own as well, so that answers can be asked for first: in a crowd
        # they would else wait behind every client that is ready, while each of those takes one more backend connection.
        # Edge-triggered in there, so that none is looked at twice: of what is not read at once the other epoll tells.
        # (Not nested in the other one: where nobody else is ready, that costs a system call for each answer.)
        self._answers = select.epoll()
        self._backends: set[int] = set()
        self._heap: list[tuple[float, int, Timed]] = []
        self._order = itertools.count()
        self._dead = 0  # entries in the heap whose item was disarmed
        self._deferred: deque[Callable[[], None]] = deque()
        # Who defers from a task would else wait for the next event. Edge-triggered: nobody has to read it.
        self._waker = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._waker, select.EPOLLIN | select.EPOLLET)
        # By descriptor: a list is looked up at a third of a dictionary's price. None: it is not registered here.
        self.handlers: list[Handler | None] = [None] * (self._waker + 1)
        self._parked = False  # `run` waits
        self.tasks = 0  # of the task lane, that would be kept waiting
        self.now = 0.0  # the clock, read once per batch
        self._wall_offset = 0.0
        # Since whoever reads them last set them to zero.
        self.longest_turn_s = 0.0  # in which Trio's tasks had to wait for this one, a moment of lingering included
        self.longest_batch_s = 0.0  # in which those who were not in it had to wait

    def register(self, fd: int, events: int, handler: Handler) -> None:
        self._epoll.register(fd, events)
        self._put(fd, handler)

    def register_backend(self, fd: int, events: int, handler: Handler) -> None:
        """As register, for a connection whose readiness goes first."""
        self._epoll.register(fd, events)
        self._answers.register(fd, events | select.EPOLLET)
        self._backends.add(fd)
        self._put(fd, handler)

    def _put(self, fd: int, handler: Handler) -> None:
        missing = fd + 1 - len(self.handlers)
        if missing > 0:
            self.handlers += [None] * missing
        self.handlers[fd] = handler

    def handle(self, fd: int, handler: Handler) -> None:
        """Another handler for a registered descriptor: costs no system call. Raises KeyError if it is none."""
        if not self._take(fd):
            raise KeyError(fd)
        self.handlers[fd] = handler

    def modify(self, fd: int, events: int) -> None:
        self._epoll.modify(fd, events)
        if fd in self._backends:
            self._answers.modify(fd, events | select.EPOLLET)

    def has(self, fd: int) -> bool:
        """Is the descriptor registered?"""
        return 0 <= fd < len(self.handlers) and self.handlers[fd] is not None

    def unregister(self, fd: int) -> None:
        if not self._take(fd):
            return
        self._epoll.unregister(fd)
        if fd in self._backends:
            self._backends.remove(fd)
            self._answers.unregister(fd)

    def _take(self, fd: int) -> bool:
        """Its handler is none any more; False if it had none. A closed socket's -1 has none."""
        if not 0 <= fd < len(self.handlers) or self.handlers[fd] is None:
            return False
        self.handlers[fd] = None
        return True

    def defer(self, callback: Callable[[], None]) -> None:
        """Call it after the present batch: for work that would else keep everybody waiting, or call itself."""
        self._deferred.append(callback)
        if self._parked:
            self._parked = False
            os.eventfd_write(self._waker, 1)

    def wall(self, at: float) -> float:
        """The time of day (seconds of the epoch) of a clock reading."""
        return at + self._wall_offset

    def forget(self, fd: int) -> None:
        """As unregister, for a descriptor that is closed now: epoll drops it by itself, which saves a system call."""
        self._take(fd)
        self._backends.discard(fd)

    # Deadlines

    def arm(self, item: Timed, timeout_s: float) -> None:
        """`item.on_deadline()` is called in `timeout_s`, unless it is armed again or disarmed before."""
        self.arm_at(item, self.now + timeout_s)

    def arm_at(self, item: Timed, deadline: float) -> None:
        item.deadline = deadline
        if deadline < item.queued_at:
            if item.queued_at != NEVER:
                self._dead += 1  # the later entry is void
            self._queue(item)

    def _queue(self, item: Timed) -> None:
        item.queued_at = at = min(item.deadline, self.now + LOOK_S)
        heappush(self._heap, (at, next(self._order), item))

    def disarm(self, item: Timed) -> None:
        """Never, and let go of it: connections that come and go must not pile up here until their time would come."""
        item.deadline = NEVER
        if item.queued_at != NEVER:
            item.queued_at = NEVER
            self._dead += 1
            if self._dead > 256 and self._dead > len(self._heap) // 2:
                self._heap[:] = [entry for entry in self._heap if entry[2].queued_at == entry[0]]
                heapify(self._heap)
                self._dead = 0

    def fire_due(self) -> None:
        heap, now = self._heap, self.now
        while heap and heap[0][0] <= now:
            at, _, item = heappop(heap)
            if item.queued_at != at:
                self._dead = max(0, self._dead - 1)
                continue
            item.queued_at = NEVER
            if item.deadline > now:
                if item.deadline != NEVER:
                    self._queue(item)
                continue
            item.deadline = NEVER
            self.guarded(item.on_deadline)

    # The loop

    async def run(self) -> None:
        """Until cancelled. Home of every handler.

        Where no task is waiting for its turn, a moment is spent in our own epoll before Trio is asked again: the answer
        to what was just sent is mostly a few microseconds away, and a trip through Trio's loop costs forty.
        """
        self._read_clocks()
        clock = trio.lowlevel.current_clock().current_time
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tick)
            fd = self._epoll.fileno()
            crowded = False
            while True:
                if self._deferred:
                    await trio.lowlevel.checkpoint()
                else:
                    self._parked = True
                    await trio.lowlevel.wait_readable(fd)
                    self._parked = False
                started = now = clock()
                while now - started < (TASKS_TURN_S if self.tasks or self._deferred else TURN_S):
                    answers_s = 0.0
                    if crowded:
                        self.now = now
                        self._handle(self._answers.poll(0, BATCH_EVENTS))
                        answers_s = clock() - now
                    waits_s = 0.0 if self.tasks or self._deferred else LINGER_S
                    ready = self._epoll.poll(waits_s, CROWD_EVENTS if crowded else BATCH_EVENTS)
                    self.now = now = clock()
                    if not ready:
                        break
                    began = now - answers_s
                    self._handle(ready)
                    crowded = len(ready) >= CROWD and bool(self._backends)
                    now = clock()
                    if now - began > self.longest_batch_s:
                        self.longest_batch_s = now - began
                if self._deferred:
                    self.now = now
                    for _ in range(len(self._deferred)):
                        self.guarded(self._deferred.popleft())
                    self.now = now = clock()
                if now - started > self.longest_turn_s:
                    self.longest_turn_s = now - started

    def _handle(self, ready: list[tuple[int, int]]) -> None:
        handlers = self.handlers
        for fd, mask in ready:
            handler = handlers[fd]
            if handler is None:
                continue  # unregistered by a handler before it in this batch
            try:
                handler.on_ready(mask)
            except Exception:
                self._broken(handler)

    async def _tick(self) -> None:
        pause_s = TICK_S
        while True:
            await trio.sleep(pause_s)
            pause_s = TICK_S
            due = self._heap[0][0] if self._heap else NEVER
            if due > trio.current_time():
                await self._doze(due + DOZE_LATE_S)
                if self.now < due + DOZE_LATE_S:  # something happened: more may, so let it
                    pause_s = min(TICK_S, due + TICK_S - self.now)
                    continue
            # A task that waits for the same moment comes first (a drain that cuts a lease counts it), also if both are
            # late: in one trip through Trio's loop the task's deadline is noticed, in the next the task runs.
            self._read_clocks()
            for _ in range(2 if due <= self.now else 0):
                await trio.lowlevel.checkpoint()
            self.fire_due()

    async def _doze(self, until: float) -> None:
        """Until then, or until anything at all happens in this thread; `now` is right behind it.

        A tick costs a process that sleeps 0.2 ms. But whoever runs next, handler or task, must find the clock right:
        so it is Trio's loop that rouses us, before it runs anybody.
        """
        roused = trio.Event()

        def rouse() -> None:
            self._read_clocks()
            roused.set()

        alarm = _Alarm(rouse)
        trio.lowlevel.add_instrument(alarm)
        try:
            with trio.move_on_at(until):
                await roused.wait()
        finally:
            trio.lowlevel.remove_instrument(alarm)

    def _read_clocks(self) -> None:
        self.now = trio.current_time()
        self._wall_offset = time.time() - self.now

    def guarded(self, callback: Callable[[], None]) -> None:
        """Call it. A mistake in it costs its own connection, and not that of the caller."""
        try:
            callback()
        except Exception:
            self._broken(getattr(callback, "__self__", None))

    def _broken(self, owner: object) -> None:
        """Our own mistake, whatever it is, costs this connection and no other one."""
        self._emit(Notice(f"a connection was dropped: {traceback.format_exc(limit=-4).strip()}"))
        abort = getattr(owner, "abort", None)
        if abort is not None:
            try:
                abort()
            except Exception:
                self._emit(Notice(f"and could not be closed: {traceback.format_exc(limit=-2).strip()}"))

    def close(self) -> None:
        self._answers.close()
        self._epoll.close()
        os.close(self._waker)


class _Alarm(trio.abc.Instrument):
    """Rings when Trio's loop has waited, before it runs a task."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring

    def after_io_wait(self, waited_s: float) -> None:
        self._ring()
