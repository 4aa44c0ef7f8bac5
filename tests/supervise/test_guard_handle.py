import os
import select
import signal
import subprocess
import sys

import trio
from support.children import PYTHON, ignored_signals, is_known, is_running
from support.trio_test import trio_test

from lbproxy.supervise.guard_handle import Guard
from lbproxy.supervise.reap import Children
from lbproxy.supervise.session import session_pids
from lbproxy.telemetry.events import Notice

# A control that holds a guard and one backend that leaves a process behind, and then is killed.
CONTROL = """
import sys, trio
from support.children import pool, stage
async def main():
    async with stage() as here:
        here.nursery.start_soon(here.resources.guard.run)
        await here.resources.guard.wait_listening()
        deaf = "import signal; signal.signal(15, signal.SIG_IGN); print('up'); signal.pause()"
        backend = here.backend(pool("sh", "-c", f'{sys.executable} -I -S -u -c "{deaf}" & wait'))
        await backend.output.wait_newer(0)
        print(backend.backend.pid, here.resources.guard.pid, flush=True)
        await trio.sleep_forever()
trio.run(main)
"""


def descriptors(pid):
    return {fd: os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}


def test_backends_do_not_outlive_a_killed_control():
    with subprocess.Popen([sys.executable, "-c", CONTROL], stdout=subprocess.PIPE, cwd="tests") as control:
        backend, guard = map(int, control.stdout.readline().split())
        assert len(session_pids([backend])) == 2
        watched = [os.pidfd_open(pid) for pid in [guard, *session_pids([backend])]]
        control.kill()
        control.wait()
        for pidfd in watched:
            assert _gone_within(pidfd, 5.0)
    assert session_pids([backend]) == []


def _gone_within(pidfd, limit_s):
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    gone = bool(poll.poll(limit_s * 1000))
    os.close(pidfd)
    return gone


@trio_test
async def test_a_guard_holds_nothing_of_control_but_its_pipe():
    guard = Guard(Children(), [].append)
    read_end, write_end = os.pipe()
    os.set_inheritable(write_end, True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(guard.run)
        await guard.wait_listening()
        while not ignored_signals(guard.pid) & (1 << (signal.SIGTERM - 1)):
            await trio.lowlevel.checkpoint()  # it is just starting
        held = descriptors(guard.pid)
        assert set(held) == {"0", "1", "2"}
        assert held["0"].startswith("pipe:")
        assert held["1"] == held["2"] == "/dev/null"
        assert os.getsid(guard.pid) == guard.pid
        nursery.cancel_scope.cancel()
    os.close(read_end)
    os.close(write_end)


@trio_test
async def test_a_guard_that_is_killed_is_replaced_and_told_everything():
    events = []
    guard = Guard(Children(), events.append)
    with subprocess.Popen([*PYTHON, "import signal; signal.pause()"], start_new_session=True) as child:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(guard.run)
            guard.add(child.pid)
            await guard.wait_listening()
            first = guard.pid
            guard._listening = trio.Event()
            os.kill(first, signal.SIGKILL)
            await guard.wait_listening()
            assert guard.pid != first
            assert isinstance(events[0], Notice)
            assert not is_running(first)
            nursery.cancel_scope.cancel()  # the end of control: the guard ends the child
        assert child.wait(timeout=5) == -signal.SIGTERM


@trio_test
async def test_telling_never_blocks_and_loses_nothing():
    guard = Guard(Children(), [].append)
    with subprocess.Popen([*PYTHON, "import signal; signal.pause()"], start_new_session=True) as child:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(guard.run)
            await guard.wait_listening()
            os.kill(guard.pid, signal.SIGSTOP)
            for number in range(20_000):  # more than a pipe holds
                guard.add(10_000_000 + number)
                guard.remove(10_000_000 + number)
            guard.add(child.pid)
            os.kill(guard.pid, signal.SIGCONT)
            while guard._unsent:
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        assert child.wait(timeout=5) == -signal.SIGTERM


@trio_test
async def test_an_idle_guard_leaves_at_once():
    children = Children()
    guard = Guard(children, [].append)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(guard.run)
        await guard.wait_listening()
        pid = guard.pid
        nursery.cancel_scope.cancel()
    assert not is_known(pid)


@trio_test
async def test_a_guard_prints_where_it_stands():
    guard = Guard(Children(), [].append)
    guard.add(4_194_304)
    assert repr(guard) == "<Guard not running, 1 process groups, 0 bytes unsent>"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(guard.run)
        await guard.wait_listening()
        assert repr(guard).startswith(f"<Guard pid {guard.pid}, 1 process groups, ")
        guard.remove(4_194_304)
        nursery.cancel_scope.cancel()
