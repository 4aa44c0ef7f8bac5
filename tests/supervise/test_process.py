import json
import os
import resource
import subprocess
import sys
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from support.children import PYTHON, generation, is_known, is_running, open_descriptors, pool, stage
from support.trio_test import trio_test

from lbproxy.config.user import user_of
from lbproxy.model import BackendId, BackendSpec
from lbproxy.supervise.command import CannotStart, Order, order_for
from lbproxy.supervise.output import RING_LINES, OutputRing
from lbproxy.supervise.output_forwarder import OutputForwarder
from lbproxy.supervise.process import Child, how_it_ended
from lbproxy.supervise.session import MARK, session_pids
from lbproxy.telemetry.events import BackendOutput, Notice

ID = BackendId("web", 3, 7)
ABOUT = """
import json, os, sys
print(json.dumps({
    "pid": os.getpid(), "pgid": os.getpgrp(), "sid": os.getsid(0), "cwd": os.getcwd(), "uid": os.getuid(),
    "fds": {n: os.readlink(f"/proc/self/fd/{n}") for n in "0123456789" if os.path.exists(f"/proc/self/fd/{n}")},
    "ignored": next(line.split()[1] for line in open("/proc/self/status") if line.startswith("SigIgn")),
    "nofile": __import__("resource").getrlimit(7)[0], "home": os.environ.get("HOME"), "groups": os.getgroups(),
}))
"""


def order(*command, **changes):
    return Order(**{"command": command, "env": dict(os.environ), "directory": "/", "user": None} | changes)


@asynccontextmanager
async def spawned(what, ring=None, events=None):
    """A running child whose output goes to `ring` and `events`."""
    async with stage() as here:
        child = await Child.spawn(what, here.resources.children, here.resources.guard)
        emit = events.append if events is not None else here.events.append
        here.nursery.start_soon(
            child.forward_output, OutputForwarder(ID, ring if ring is not None else OutputRing(), emit)
        )
        yield child


async def output_of(what):
    ring = OutputRing()
    async with spawned(what, ring) as child:
        await child.wait_dead()
        assert await child.reap() == 0
    return "\n".join(line.text for line in ring.since(0))


@trio_test
async def test_a_backend_has_a_session_of_its_own_and_three_descriptors():
    read_end, write_end = os.pipe()
    os.set_inheritable(write_end, True)
    about = json.loads(await output_of(order(*PYTHON, ABOUT)))
    os.close(read_end)
    os.close(write_end)
    assert about["pid"] == about["pgid"] == about["sid"]
    assert about["cwd"] == "/"
    # 3 is the directory that the child itself is looking at
    assert set(about["fds"]) - {"3"} == {"0", "1", "2"}
    assert about["fds"]["0"] == "/dev/null"
    assert about["fds"]["1"] == about["fds"]["2"]
    assert about["fds"]["1"].startswith("pipe:")
    assert about["nofile"] == resource.getrlimit(resource.RLIMIT_NOFILE)[0]


@trio_test
async def test_a_backend_with_an_inherited_socket_has_four_descriptors():
    async with stage() as here:
        endpoint = here.resources.endpoints.take("fd", "web.3", None)
        what = order_for(BackendSpec(3, generation(pool(*PYTHON, ABOUT, bind="fd"))), endpoint, None)
        about = json.loads(await output_of(what))
        here.resources.endpoints.give_back(endpoint)
    assert set(about["fds"]) - {"4"} == {"0", "1", "2", "3"}
    assert about["fds"]["3"].startswith("socket:")
    assert about["pid"] == about["sid"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
@trio_test
async def test_a_backend_runs_as_its_user_with_its_groups():
    user = user_of("daemon")
    python = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable
    about = json.loads(await output_of(order(python, "-c", ABOUT, user=user)))
    assert about["uid"] == user.uid
    assert set(about["groups"]) == set(user.groups)


@trio_test
async def test_both_streams_are_heard_in_order():
    assert await output_of(order("sh", "-c", "echo one; echo two >&2; printf three")) == "one\ntwo\nthree"


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        (order("/nowhere/app"), "cannot execute /nowhere/app: No such file or directory"),
        (order("/etc/passwd"), "cannot execute /etc/passwd: Permission denied"),
        (order("/bin/sh", directory="/nowhere"), "cannot execute /bin/sh: No such file or directory"),
        (order("/bin/sh", "a\0b"), "cannot execute /bin/sh: embedded null byte"),
    ],
)
@trio_test
async def test_a_spawn_that_fails_says_why_and_leaves_nothing(what, reason):
    async with stage() as here:
        before = open_descriptors()
        with pytest.raises(CannotStart, match=reason):
            await Child.spawn(what, here.resources.children, here.resources.guard)
        assert open_descriptors() == before


@trio_test
async def test_no_descriptor_is_left_after_the_burial():
    async with stage() as here:
        await trio.to_thread.run_sync(int)
        before = open_descriptors()
        for _ in range(3):
            child = await Child.spawn(order("true"), here.resources.children, here.resources.guard)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(child.forward_output, OutputForwarder(ID, OutputRing(), here.events.append))
                await child.wait_dead()
                await child.reap()
        assert open_descriptors() == before


@trio_test
async def test_the_dead_are_known_as_dead_before_they_are_reaped():
    async with spawned(order("true")) as child:
        await child.wait_dead()
        assert not child.is_alive()
        assert is_known(child.pid)
        await child.reap()
        assert not is_known(child.pid)


@trio_test
async def test_a_burial_kills_the_living_and_all_it_started():
    async with spawned(order("sh", "-c", "trap '' TERM; (trap '' TERM; sleep 600) & sleep 600")) as child:
        assert child.is_alive()
        assert await child.reap() == -9
    assert session_pids([child.pid]) == []


@trio_test
async def test_a_fork_bomb_of_grandchildren_is_buried():
    bomb = "import os, time\nfor _ in range(6): os.fork()\nprint('up')\ntime.sleep(600)"
    ring = OutputRing()
    async with spawned(order(*PYTHON, bomb), ring) as child:
        await ring.wait_newer(32)
        assert len(session_pids([child.pid])) > 32
        await child.reap()
    assert session_pids([child.pid]) == []


@trio_test
async def test_a_daemon_in_a_session_of_its_own_is_buried_too():
    ring = OutputRing()
    async with spawned(order("sh", "-c", "(setsid sh -c 'echo $$; exec sleep 600' &) ; sleep 600"), ring) as child:
        await ring.wait_newer(0)
        daemon = int(ring.last(1)[0].text)
        assert daemon not in session_pids([child.pid])
        await child.reap()
        assert not is_running(daemon)


@trio_test
async def test_a_daemon_that_has_cleared_its_mark_and_keeps_the_pipe_does_not_hold_up_the_burial():
    with subprocess.Popen(["true"]) as other:
        other.wait()
    ring = OutputRing()
    async with spawned(order("sh", "-c", f"setsid env -u {MARK} sleep 20 & echo $!; sleep 0.1"), ring) as child:
        await child.wait_dead()
        began = trio.current_time()
        await child.reap()
        assert trio.current_time() - began < 5.0
    daemon = int(ring.last(1)[0].text)
    assert is_running(daemon)
    os.kill(daemon, 9)


@trio_test
async def test_a_flood_is_read_on_and_neither_stalls_the_child_nor_us():
    flood = "import os\nfor _ in range(400): os.write(1, b'y\\n' * 32768)\nos.write(1, b'the end\\n')"
    ring, events = OutputRing(), []
    async with spawned(order(*PYTHON, flood), ring, events) as child:
        longest = 0.0
        async with trio.open_nursery() as nursery:

            async def feel():
                nonlocal longest
                while True:
                    before = trio.current_time()
                    await trio.sleep(0.005)
                    longest = max(longest, trio.current_time() - before)

            nursery.start_soon(feel)
            await child.wait_dead()
            await child.reap()
            nursery.cancel_scope.cancel()
    assert ring.newest == 400 * 32768 + 1
    assert ring.last(1)[0].text == "the end"
    assert len(ring.since(0)) == RING_LINES
    logged = [event for event in events if isinstance(event, BackendOutput)]
    notices = [event for event in events if isinstance(event, Notice)]
    assert len(logged) < 20_000
    assert sum(int(event.text.split()[2]) for event in notices) + len(logged) == ring.newest
    assert longest < 0.5


@trio_test
async def test_a_line_without_end_and_rubbish_take_bounded_memory():
    rubbish = "import os\nfor _ in range(64): os.write(1, bytes(range(11, 256)) * 200)"
    ring = OutputRing()
    async with spawned(order(*PYTHON, rubbish), ring) as child:
        await child.wait_dead()
        await child.reap()
    assert ring.newest > 300
    assert ring.last(1)[0].text.endswith("\\xff")


@trio_test
async def test_the_rest_may_leave_by_itself():
    ring = OutputRing()
    async with spawned(order("sh", "-c", "(sleep 0.2; echo bye) & echo up"), ring) as child:
        await child.wait_dead()
        await child.wait_rest_gone(5.0)
        await child.reap()
    assert ring.last(1)[0].text == "bye"


def test_how_a_process_ended_is_said_in_words():
    assert how_it_ended(3) == "exit code 3"
    assert how_it_ended(-9) == "signal SIGKILL"


@trio_test
async def test_a_child_prints_where_it_stands():
    async with spawned(order("sleep", "60")) as child:
        await trio.testing.wait_all_tasks_blocked()
        assert repr(child) == f"<Child pid {child.pid}, alive, reading its output>"
        child.signal(9)
        await child.wait_dead()
        assert "dead, not reaped" in repr(child)
        await child.reap()
        assert repr(child) == f"<Child pid {child.pid}, reaped>"
