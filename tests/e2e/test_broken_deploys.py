"""Deploys that do not work: the command says why, and the old generation serves on as if nothing had been."""

import json
import socket
import subprocess
from pathlib import Path

from support.load import load
from support.ports import free_port
from support.serve import Serving, serving
from support.web import web


def broken(how: str, **texts: str) -> str:
    return web(f'env = {{ BREAK = "{how}" }}', **texts)


def backends(lb: Serving) -> set[tuple[int, int, str]]:
    return {(backend["pid"], backend["generation"], backend["state"]) for backend in lb.backends()}


def test_each_kind_of_broken_deploy_is_rolled_back_and_told(tmp_path: Path) -> None:
    with serving(web(), tmp_path) as lb, load(lb.port) as clients:
        before, processes = backends(lb), {process.pid for process in lb.processes()}
        lb.write_config(broken("import"))
        done = lb.cli("reload")
        assert done.returncode == 5
        assert "exit code 1 before it was ready" in done.stdout
        assert "about to import the database driver" in done.stdout
        assert "ImportError: this deploy is broken on purpose" in done.stdout
        assert "generation 1 serves now, 2 of 2 ready" in done.stdout
        assert "never touched: the backends of web" in done.stdout
        assert done.stdout.splitlines()[-1].startswith("rolled back web to generation 1 in ")
        clients.wait_more(20)
        assert clients.lost == []
        assert backends(lb) == before
        lb.wait_log("ImportError: this deploy is broken on purpose")
        kept = lb.cli("logs", "web", "--gen", "2").stdout
        assert "ImportError: this deploy is broken on purpose" in kept
        assert "@1 |" not in kept

        # Its probe answers 500.
        lb.write_config(broken("health", health='path = "/healthz"\nstart_timeout = "1s"'))
        done = lb.cli("reload")
        assert done.returncode == 5
        assert "500" in done.stdout
        assert "the database is on fire" in done.stdout
        assert done.stdout.splitlines()[-1].startswith("rolled back web to generation 1 in ")
        clients.wait_more(20)
        assert clients.lost == []
        assert backends(lb) == before

        # It never listens.
        lb.write_config(broken("silent", health='path = "/healthz"\nstart_timeout = "500ms"'))
        done = lb.cli("reload", "--json")
        assert done.returncode == 5
        last = json.loads(done.stdout.splitlines()[-1])
        assert (last["event"], last["result"]) == ("reload.done", "rolled_back")
        assert "not ready within 0.5s" in last["why"]
        assert clients.lost == []
        assert backends(lb) == before
        lb.wait_until(lambda: {process.pid for process in lb.processes()} == processes)

        # Its command does not exist.
        lb.write_config(web(command="uvicron app:app"))
        done = lb.cli("reload")
        assert done.returncode in (5, 78)
        assert "uvicron" in done.stdout + done.stderr
        assert backends(lb) == before

        lb.write_config(web())
        assert lb.cli("reload").returncode == 0  # the way out is a deploy that works
        assert clients.lost == []


def test_a_listener_of_a_broken_deploy_lets_nobody_in(tmp_path: Path) -> None:
    """Whoever it had let in would be reset: the table that names it never comes."""
    port = free_port()
    more = f'[[listener]]\naddress = "127.0.0.1:{port}"\npool = "web"'
    with serving(web(), tmp_path) as lb:
        lb.write_config(broken("import", more=more))
        seen = set()
        with subprocess.Popen(lb.command("reload"), stdout=subprocess.DEVNULL) as asking:
            while asking.poll() is None:
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=0.1).close()
                    seen.add("was let in")
                except OSError as exc:
                    seen.add(type(exc).__name__)
        assert asking.returncode == 5
        assert "TimeoutError" in seen, "it was held already"
        assert seen <= {"TimeoutError", "ConnectionRefusedError"}
        lb.write_config(web(more=more))
        assert lb.cli("reload").returncode == 0
        with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            client.sendall(b"GET /whoami HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_a_deploy_that_dies_after_it_was_published_is_rolled_back(tmp_path: Path) -> None:
    """The first new one is ready, serves and dies while the second is being proved: its requests may be lost, but the
    old generation comes back to full strength, also the one that had been stopped already.
    """
    with serving(web(reload='min_ready = "300ms"'), tmp_path) as lb:
        lb.write_config(web('env = { LIVES = "1.2" }', size=3, reload='min_ready = "300ms"'))
        done = lb.cli("reload")
        assert done.returncode == 5, done.stdout
        assert "exit code 11 after it was proved" in done.stdout or "exit code 11" in done.stdout
        assert "generation 1 serves now, 2 of 2 ready" in done.stdout
        assert {backend["generation"] for backend in lb.backends()} == {1}
        assert lb.cli("status", "-q").returncode == 0
        with load(lb.port) as clients:
            clients.wait_more(20)
        assert clients.lost == []


def test_capacity_is_reduced_when_the_old_one_does_not_come_back(tmp_path: Path) -> None:
    """Code that is deployed in place cannot be brought back: exit code 6 says so, and the new one serves."""
    (tmp_path / "app").mkdir()
    start = tmp_path / "app" / "start"
    start.write_text("exec $command".replace("$command", "${RUN}"))
    raise_later = 'env = { LIVES = "1.2" }'  # proved after 0.8 s; the next one would be after 1.6 s
    good = web(command="sh $dir/app/start $brittle", size=3, reload='min_ready = "300ms"')
    start.write_text('exec "$@"\n')
    with serving(good, tmp_path) as lb:
        lb.write_config(good.replace("size = 3", f"size = 3\n{raise_later}"))
        start.write_text('[ "$LIVES" ] || exit 3\nexec "$@"\n')
        done = lb.cli("reload")
        assert done.returncode == 6, done.stdout
        assert "capacity is reduced" in done.stdout.splitlines()[-1]
        assert lb.cli("status", "-q").returncode == 4
        start.write_text('exec "$@"\n')
        lb.write_config(good)
        assert lb.cli("reload").returncode == 0
        assert lb.cli("status", "-q").returncode == 0


def test_the_pools_behind_a_broken_one_are_never_touched(tmp_path: Path) -> None:
    def two(how: str) -> str:
        listener = 'address = "127.0.0.1:$port"'
        more = '[pool.api]\ncommand = "$brittle"\n'
        return broken(how, more=more).replace(listener, f'{listener}\npool = "web"')

    with serving(two(""), tmp_path) as lb:
        api = [backend["pid"] for backend in lb.backends("api")]
        lb.write_config(two("import"))
        done = lb.cli("reload")
        assert done.returncode == 5
        assert "never touched: the backends of web, api, listeners and routes" in done.stdout
        verdicts = done.stdout.splitlines()[-2:]
        assert verdicts[0].startswith("rolled back web to generation 1")
        assert verdicts[1].startswith("reload of api aborted")
        assert [backend["pid"] for backend in lb.backends("api")] == api


def test_uvicorn_with_a_broken_application_is_rolled_back(tmp_path: Path) -> None:
    def uvicorn(env: str) -> str:
        health = 'path = "/healthz"\nstart_timeout = "4s"'
        return web(env, command="$uvicorn --port {port}", size=1, health=health)

    said = {"import": "ImportError: this deploy is broken on purpose", "health": "the database is on fire"}
    with serving(uvicorn(""), tmp_path) as lb, load(lb.port, clients=2) as clients:
        for how, told in said.items():
            lb.write_config(uvicorn(f'env = {{ BREAK = "{how}" }}'))
            done = lb.cli("reload")
            assert done.returncode == 5
            assert told in done.stdout
        assert clients.lost == []
