"""Backends that end by themselves with exit code 0 (`--max-requests`), and messages about one never ready."""

from dataclasses import replace

import pytest
from support.children import PYTHON, QUICK, QUICK_RESTART, pool, stage, wait_state
from support.trio_test import trio_test

from lbproxy.model import State
from lbproxy.supervise.runner import NotReady
from lbproxy.telemetry.events import BackendExited, BackendFailed, BackendRecycled, BackendStarting

# Listens, and ends with the given code after so many seconds.
SERVE_FOR = """
import os, socket, sys, time
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind((os.environ["HOST"], int(os.environ["PORT"])))
server.listen()
ends = time.monotonic() + float(sys.argv[1])
try:
    while True:
        server.settimeout(max(0.001, ends - time.monotonic()))
        server.accept()[0].close()
except TimeoutError:
    server.close()
    sys.exit(int(sys.argv[2]))
"""
CONNECT = replace(QUICK, path=None)
TWO_CRASHES = replace(QUICK_RESTART, give_up_crashes=2, give_up_within_s=60.0)


def serving_for(seconds: float, code: int = 0, health=CONNECT):
    return pool(*PYTHON, SERVE_FOR, str(seconds), str(code), health=health, restart=TWO_CRASHES)


@trio_test(timeout_s=20)
async def test_one_that_ends_with_0_after_it_was_ready_starts_again_at_once_and_is_no_crash():
    async with stage() as here:
        backend = here.backend(serving_for(1.1))
        for _ in range(3):
            await wait_state(backend, State.READY)
            await wait_state(backend, State.STARTING)
        assert not here.named(BackendFailed)
        assert not here.named(BackendExited)
        ends = here.named(BackendRecycled)
        assert [end.restart_in_s for end in ends] == [0.0] * len(ends)
        assert all(end.after_s >= 1.1 for end in ends)
        assert backend.recycled >= 2
        assert backend.backend.restarts == 0


@pytest.mark.long
@trio_test(timeout_s=20)
async def test_one_that_ends_with_0_in_less_than_a_second_is_started_again_with_back_off():
    async with stage() as here:
        # On a busy machine a run may end before it was ready, which is a crash: here it may crash often.
        patient = replace(QUICK_RESTART, give_up_crashes=1000)
        backend = here.backend(replace(serving_for(0.6), restart=patient))
        while len(here.named(BackendRecycled)) < 3:
            await backend.wait_change()
        assert all(end.after_s + end.restart_in_s > 0.99 for end in here.named(BackendRecycled))
        assert not here.named(BackendFailed)


@trio_test(timeout_s=20)
async def test_another_exit_code_is_a_crash():
    async with stage() as here:
        backend = here.backend(serving_for(0.3, code=3))
        await wait_state(backend, State.FAILED)
        assert not here.named(BackendRecycled)
        while len(here.named(BackendExited)) < 2:
            await backend.wait_change()
        assert [event.how for event in here.named(BackendExited)] == ["exit code 3"] * 2


@trio_test(timeout_s=20)
async def test_a_backend_that_recycles_itself_after_it_was_proved_comes_back():
    async with stage() as here:
        backend = here.backend(serving_for(3.0), reload="r1")
        await backend.wait_proved(1.0)
        await wait_state(backend, State.STARTING)
        await wait_state(backend, State.READY)
        assert len(here.named(BackendStarting)) == 2


@trio_test(timeout_s=20)
async def test_one_on_trial_that_ends_at_once_each_time_is_not_ready():
    async with stage() as here:
        backend = here.backend(serving_for(0.4), reload="r1")
        with pytest.raises(NotReady, match=r"exit code 0 before it was (proved|ready), twice"):
            await backend.wait_proved(5.0)


@trio_test(timeout_s=20)
async def test_one_that_never_stays_ready_long_enough_is_not_proved_for_ever():
    async with stage() as here:
        backend = here.backend(serving_for(1.2, health=replace(CONNECT, start_timeout_s=0.5)), reload="r1")
        with pytest.raises(NotReady, match="did not stay ready for 3s"):
            await backend.wait_proved(3.0)


FORK = "import os, time; os.fork() and os._exit(0); os.setsid(); time.sleep(30)"


@trio_test(timeout_s=20)
async def test_one_that_goes_into_the_background_is_told_apart_from_one_that_just_ends():
    async with stage() as here:
        daemon = here.backend(pool(*PYTHON, FORK, health=CONNECT), reload="r1")
        with pytest.raises(
            NotReady, match=r"exit code 0 before it was ready, twice \(it went into the background as pid"
        ):
            await daemon.wait_ready()
        brief = here.backend(pool("true", health=CONNECT), reload="r2")
        with pytest.raises(NotReady, match=r"twice \(a backend has to stay: keep it in the foreground\)"):
            await brief.wait_ready()


ELSEWHERE = """
import os, socket, sys, time
family, address = eval(sys.argv[1])
server = socket.socket(family)
server.bind(address)
server.listen()
time.sleep(30)
"""


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("(socket.AF_INET6, ('::1', 0))", r"\(it listens on \[::1\]:\d+, not on 127\.0\.0\.1:\d+\)"),
        ("(socket.AF_INET, ('127.0.0.1', 0))", r"\(it listens on 127\.0\.0\.1:\d+, not on 127\.0\.0\.1:\d+\)"),
        ("(socket.AF_UNIX, DIR + '/app.sock')", r"\(it listens on unix:/.*/app\.sock, not on 127\.0\.0\.1:\d+\)"),
    ],
    ids=["IPv6", "another port", "unix"],
)
@trio_test(timeout_s=20)
async def test_where_a_backend_listens_instead_is_told(where, told, tmp_path):
    async with stage() as here:
        where = where.replace("DIR", repr(str(tmp_path)))
        settings = pool(*PYTHON, ELSEWHERE, where, health=replace(CONNECT, start_timeout_s=1.0))
        backend = here.backend(settings, reload="r1")
        with pytest.raises(NotReady, match="not ready within 1s: connection refused " + told):
            await backend.wait_ready()


COUNTING = """
import os, socket, sys, time
path = os.environ.get("LBPROXY_SOCKET")
server = socket.socket(socket.AF_UNIX if path else socket.AF_INET)
server.bind(path or (os.environ["HOST"], int(os.environ["PORT"])))
time.sleep(0.5)
server.listen()
while True:
    server.accept()
    print("a connection", flush=True)
"""


@pytest.mark.parametrize("bind", ["tcp", "unix"])
@trio_test(timeout_s=20)
async def test_without_active_probes_it_is_ready_when_it_listens_and_nothing_ever_connects(bind):
    async with stage() as here:
        health = replace(CONNECT, active=False)
        backend = here.backend(pool(*PYTHON, COUNTING, bind=bind, health=health), reload="r1")
        await backend.wait_ready()
        await backend.wait_proved(0.5)
        backend.refused()
        assert backend.backend.state is State.READY
        assert backend.output.newest == 0
