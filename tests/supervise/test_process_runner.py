import os
import re
import signal
import socket
from dataclasses import replace

import pytest
import trio
import trio.testing
from support.children import PYTHON, QUICK, pool, server_pool, stage, wait_state
from support.trio_test import trio_test

from lbproxy.model import State
from lbproxy.settings import RestartSettings
from lbproxy.supervise.runner import NotReady
from lbproxy.telemetry.events import (
    BackendExited,
    BackendFailed,
    BackendNotReady,
    BackendProved,
    BackendReady,
    BackendStarting,
    BackendUnhealthy,
    Notice,
)

LISTEN_WHEN_TOLD = """
import os, socket, sys, time
while not os.path.exists(sys.argv[1]):
    time.sleep(0.01)
server = socket.socket()
server.bind((os.environ["HOST"], int(os.environ["PORT"])))
server.listen()
time.sleep(60)
"""


@trio_test
async def test_it_is_proved_after_it_has_stayed_ready():
    async with stage() as here:
        backend = here.backend(server_pool(), reload="r1")
        await backend.wait_proved(0.3)
        assert trio.current_time() - backend.backend.since >= 0.3
        assert here.named(BackendProved)[0].reload == "r1"


@trio_test
async def test_a_failed_probe_starts_the_proof_anew(tmp_path):
    answer = tmp_path / "answer"
    async with stage() as here:
        slow = replace(QUICK, interval_s=0.05, fall=1000)
        backend = here.backend(server_pool(str(answer), health=slow), reload="r1")
        await backend.wait_ready()
        answer.write_text("500 no")
        with trio.move_on_after(0.5) as limit:
            await backend.wait_proved(0.2)
        assert limit.cancelled_caught
        answer.write_text("200 yes")
        await backend.wait_proved(0.2)


@trio_test
async def test_one_that_falls_while_it_is_proved_is_not_ready_and_the_answer_is_shown(tmp_path):
    answer = tmp_path / "answer"
    async with stage() as here:
        backend = here.backend(server_pool(str(answer)), reload="r1")
        await backend.wait_ready()
        answer.write_text("500 database is away")
        with pytest.raises(NotReady, match=r"unhealthy.*GET / answered 500: 'database is away'"):
            await backend.wait_proved(60.0)
        assert len(here.named(BackendNotReady)) == 1


@trio_test
async def test_one_whose_probe_never_passes_is_not_ready_in_time_and_the_answer_is_shown(tmp_path):
    answer = tmp_path / "answer"
    answer.write_text("500 no such table: users")
    async with stage() as here:
        health = replace(QUICK, start_timeout_s=0.6)
        backend = here.backend(server_pool(str(answer), health=health), reload="r1")
        with pytest.raises(NotReady, match=r"not ready within 0.6s: GET / answered 500: 'no such table: users'"):
            await backend.wait_proved(1.0)
        await wait_state(backend, State.FAILED)
        assert len(here.named(BackendStarting)) == 1
        assert len(here.named(BackendNotReady)) == 1
        await backend.stop()


@trio_test
async def test_a_slow_start_is_told_with_what_it_waits_for(tmp_path, monkeypatch):
    monkeypatch.setattr("lbproxy.supervise.process_runner.SLOW_START_S", 0.3)
    answer = tmp_path / "answer"
    answer.write_text("503 loading the model")
    async with stage() as here:
        health = replace(QUICK, start_timeout_s=0.8)
        backend = here.backend(server_pool(str(answer), health=health), reload="r1")
        with pytest.raises(NotReady):
            await backend.wait_proved(1.0)
        (told,) = here.named(Notice)
        expected = r"web.3@7 is still starting: GET / answered 503: 'loading the model' \(0\.\ds of 0.8s\)"
        assert re.fullmatch(expected, told.text)
        assert told.reload == "r1"


@trio_test
async def test_one_that_dies_on_trial_is_tried_once_more_with_another_port_and_then_given_up():
    async with stage() as here:
        backend = here.backend(pool(*PYTHON, "import sys; print('no module named app'); sys.exit(3)"), reload="r1")
        with pytest.raises(NotReady, match=r"exit code 3 before it was ready, twice") as caught:
            await backend.wait_proved(1.0)
        assert caught.value.output == ("no module named app",)
        first, second = here.named(BackendStarting)
        assert first.address != second.address
        assert [event.restart_in_s for event in here.named(BackendExited)] == [0.0, None]
        assert backend.backend.state is State.FAILED
        assert await backend.stop() == "not running"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"command": ("uvicron",)}, r"command not found: 'uvicron' \(PATH is "),
        ({"command": ("./no-such",)}, r"command not found: './no-such' \(in /\)"),
        ({"command": ("/etc/passwd",)}, r"not executable: /etc/passwd"),
        ({"command": ("true",), "directory": "/nowhere"}, r"directory is gone: /nowhere"),
        ({"command": ("true",), "user": "nobody-at-all"}, r"user: there is no user 'nobody-at-all'"),
        ({"command": ("true", "{socket}")}, r"\{socket\} has no value with this 'bind'"),
    ],
)
@trio_test
async def test_what_cannot_be_started_says_why_in_one_line(changes, reason):
    async with stage() as here:
        backend = here.backend(replace(pool(), **changes), reload="r")
        with pytest.raises(NotReady, match=reason) as caught:
            await backend.wait_proved(1.0)
        assert "\n" not in caught.value.why
        (exited,) = here.named(BackendExited)
        assert exited.how == caught.value.why
        assert exited.pid is None


@trio_test
async def test_an_unreadable_program_format_is_one_line_too(tmp_path):
    program = tmp_path / "program"
    program.write_bytes(b"\x00\x01garbage")
    program.chmod(0o755)
    async with stage() as here:
        backend = here.backend(pool(str(program)), reload="r")
        with pytest.raises(NotReady, match=r"cannot execute .*program: Exec format error"):
            await backend.wait_proved(1.0)


@trio_test
async def test_no_free_port_is_said():
    async with stage() as here:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            here.resources.ports.change(port, port)
            backend = here.backend(server_pool(), reload="r")
            with pytest.raises(NotReady, match=f"no free port in {port}-{port}"):
                await backend.wait_proved(1.0)


@trio_test
async def test_a_crash_is_answered_by_a_restart_and_the_output_is_kept():
    async with stage() as here:
        backend = here.backend(server_pool())
        await backend.wait_ready()
        await backend.output.wait_newer(0)
        os.kill(backend.backend.pid, signal.SIGKILL)
        await wait_state(backend, State.READY, after=1)
        await backend.output.wait_newer(1)
        (exited,) = here.named(BackendExited)
        assert exited.how == "signal SIGKILL"
        assert exited.output == ("listening",)
        assert 0.0 < exited.restart_in_s <= 0.05
        assert [line.text for line in backend.output.last(10)] == ["listening", "listening"]
        assert backend.backend.restarts == 1


@trio_test
async def test_a_dead_backend_is_told_before_its_last_words_are_read():
    code = (
        "import os, socket, time; s = socket.socket(); s.bind(('127.0.0.1', int(os.environ['PORT']))); s.listen();"
        "os.fork() or (os.setsid(), s.close(), time.sleep(8), os._exit(0)); time.sleep(60)"
    )
    async with stage() as here:
        backend = here.backend(pool(*PYTHON, code, health=replace(QUICK, path=None)))
        await backend.wait_ready()
        said_at = []
        backend.on_change = lambda member: said_at.append(len(here.named(BackendExited)))
        (daemon,) = list(_children_of(backend.backend.pid))
        os.kill(backend.backend.pid, signal.SIGKILL)
        await wait_state(backend, State.READY, after=1)
        assert said_at[0] == 0
        os.kill(daemon, signal.SIGKILL)
        for pid in _children_of(backend.backend.pid):
            os.kill(pid, signal.SIGKILL)


def _children_of(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(word) for word in file.read().split()]


@trio_test
async def test_one_that_keeps_dying_is_given_up():
    async with stage() as here:
        restart = RestartSettings(backoff_first_s=0.01, backoff_max_s=0.02, give_up_crashes=3, give_up_within_s=60.0)
        backend = here.backend(pool("false", restart=restart))
        await wait_state(backend, State.FAILED)
        (failed,) = here.named(BackendFailed)
        assert failed.crashes == 3
        assert [event.restart_in_s is None for event in here.named(BackendExited)] == [False, False, True]
        with pytest.raises(NotReady, match="exit code 1 before it was ready"):
            await backend.wait_ready()
        assert await backend.stop() == "not running"


@trio_test
async def test_a_late_one_that_is_not_on_trial_backs_off_and_tries_again(tmp_path):
    answer = tmp_path / "answer"
    answer.write_text("500 no")
    async with stage() as here:
        backend = here.backend(server_pool(str(answer), health=replace(QUICK, start_timeout_s=0.5)))
        with pytest.raises(NotReady, match="not ready within"):
            await backend.wait_ready()
        answer.unlink()
        await wait_state(backend, State.READY, after=1)


@trio_test
async def test_ready_means_our_child_and_not_a_stranger_on_its_port():
    async with stage() as here:
        stranger = socket.socket()

        def take_the_port(member):
            if member.backend.address is not None and stranger.getsockname()[1] == 0:
                stranger.bind((member.backend.address.host, member.backend.address.port))
                stranger.listen()

        flag = f"/tmp/lbproxy-test-{os.getpid()}-never"
        settings = pool(*PYTHON, LISTEN_WHEN_TOLD, flag, health=replace(QUICK, path=None))
        backend = here.backend(settings, reload="r1")
        backend.on_change = take_the_port
        while not here.named(BackendExited):
            await backend.wait_change()
        (exited,) = here.named(BackendExited)
        assert f"held by pid {os.getpid()}" in exited.how
        assert exited.restart_in_s == 0.0
        while len(here.named(BackendStarting)) < 2:
            await backend.wait_change()
        first, second = here.named(BackendStarting)
        assert first.address != second.address
        assert not here.named(BackendReady)
        stranger.close()


@trio_test
async def test_one_that_dies_because_its_port_was_taken_gets_another(tmp_path):
    flag = tmp_path / "go"
    async with stage() as here:
        stranger = socket.socket()

        def take_the_port(member):
            if member.backend.address is not None and not flag.exists():
                stranger.bind((member.backend.address.host, member.backend.address.port))
                stranger.listen()
                flag.touch()

        no_probe_yet = replace(QUICK, path="/")  # the stranger never answers; a TCP probe would find it first
        settings = pool(*PYTHON, LISTEN_WHEN_TOLD, str(flag), health=no_probe_yet)
        backend = here.backend(settings, trial=False)
        backend.on_change = take_the_port
        while len(here.named(BackendStarting)) < 2:
            await backend.wait_change()
        first, second = here.named(BackendStarting)
        assert first.address != second.address
        (exited,) = here.named(BackendExited)
        assert exited.how == "exit code 1"
        assert exited.restart_in_s == 0.0
        assert backend.backend.restarts == 0
        stranger.close()


@trio_test
async def test_the_last_lines_of_a_failed_start_are_told():
    async with stage() as here:
        backend = here.backend(pool("sh", "-c", "for i in $(seq 30); do echo line $i; done; exit 3"), reload="r")
        with pytest.raises(NotReady) as caught:
            await backend.wait_proved(1.0)
        assert caught.value.output == tuple(f"line {n}" for n in range(11, 31))


@trio_test
async def test_live_settings_replace_those_of_the_generation(tmp_path):
    answer = tmp_path / "answer"
    async with stage() as here:
        backend = here.backend(server_pool(str(answer), health=replace(QUICK, interval_s=600.0)))
        await backend.wait_ready()
        answer.write_text("500 no")
        backend.update(replace(backend.settings, health=QUICK))
        await wait_state(backend, State.UNHEALTHY)
        assert here.named(BackendUnhealthy)[0].why == "GET / answered 500: 'no'"


@trio_test
async def test_status_is_told_why_it_starts_backs_off_and_has_failed(tmp_path):
    (tmp_path / "answer").write_text("503 migrating")
    async with stage() as here:
        starting = here.backend(server_pool(str(tmp_path / "answer")))
        while "503" not in starting.why:
            await starting.wait_change()
        assert re.fullmatch(r"GET / answered 503: 'migrating' \(\d+\.\ds of 10s\)", starting.why)
        await starting.stop()
        restart = RestartSettings(backoff_first_s=100.0, backoff_max_s=100.0)
        waiting = here.backend(pool("sh", "-c", "exit 3", restart=restart))
        await wait_state(waiting, State.BACKOFF)
        assert re.fullmatch(r"exit code 3 before it was ready; started again in \d+\.\ds", waiting.why)
        crashing = here.backend(pool("sh", "-c", "exit 3", restart=replace(restart, give_up_crashes=1)))
        await wait_state(crashing, State.FAILED)
        assert crashing.why == "exit code 3 before it was ready; 1 crash within 60s: not started again"
        on_trial = here.backend(pool("uvicron"), reload="r1")
        await wait_state(on_trial, State.FAILED)
        await trio.testing.wait_all_tasks_blocked()
        assert on_trial.why.startswith("command not found: 'uvicron'")
