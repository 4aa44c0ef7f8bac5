"""uvicorn, gunicorn and Node behind every kind of `bind`: they serve, are reloaded under load, and end in order."""

from pathlib import Path

import pytest
from support.load import load
from support.serve import serving
from support.web import web

WSGI = """
import json, os, time

def app(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        time.sleep(1.0)
    body = json.dumps({"generation": os.environ["LBPROXY_GENERATION"], "pid": os.getpid()}).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""
GUNICORN = "$python -m gunicorn --threads 4 app:app"
COMMANDS = {
    ("uvicorn", "tcp"): "$uvicorn --port {port}",
    ("uvicorn", "unix"): "$uvicorn --uds {socket}",
    ("uvicorn", "fd"): "$uvicorn --fd {fd}",
    ("gunicorn", "tcp"): f"{GUNICORN} -b {{host}}:{{port}}",
    ("gunicorn", "unix"): f"{GUNICORN} -b unix:{{socket}}",
    ("gunicorn", "fd"): GUNICORN,  # finds LISTEN_FDS by itself
    ("gunicorn", "fd", "by its number"): f"{GUNICORN} -b fd://{{fd}}",
    ("node", "tcp"): "$node",
    ("node", "unix"): "$node",
    ("node", "fd"): "$node",
}


@pytest.mark.peer("node")
@pytest.mark.parametrize("which", COMMANDS, ids="-".join)
def test_a_server_serves_is_reloaded_under_load_and_ends_in_order(tmp_path: Path, which: tuple[str, ...]) -> None:
    bind = which[1]
    (tmp_path / "app.py").write_text(WSGI)
    config = web(f'bind = "{bind}"\ndirectory = "$dir"', size=1, command=COMMANDS[which])
    with serving(config, tmp_path) as lb:
        with load(lb.port, clients=2) as clients, lb.connect() as slow:
            slow.sendall(b"GET /slow HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            lb.wait_until(lambda: lb.backends()[0]["in_flight"] >= 1)
            done = lb.cli("reload")
            assert done.returncode == 0, done.stdout
            answer = slow.makefile("rb").read()
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b'1"' in answer.partition(b"generation")[2][:8], "the old generation finished it"
        assert clients.lost == []
        assert " 0 failed, 0 connections cut" in done.stdout.splitlines()[-1]
        assert lb.get("/whoami").json()["generation"] == "2"
        address = lb.backends()[0]["address"]
        assert address.startswith("127.0.0.1:") if bind == "tcp" else address
        assert lb.stop() == 0
        ends = [line for line in lb.log().splitlines() if '"backend.stopped"' in line]
        assert len(ends) == 2
        # uvicorn raises the signal again when it has finished; the others end with 0.
        assert all('"how":"exit code 0"' in end or '"how":"TERM"' in end for end in ends), ends


@pytest.mark.parametrize("bind", ["tcp", "unix", "fd"])
def test_the_environment_is_what_the_contract_says(tmp_path: Path, bind: str) -> None:
    (tmp_path / "my.env").write_text("# a comment\nFROM_FILE='quoted value'\nBOTH=file\n")
    extra = f'bind = "{bind}"\nenv = {{ BOTH = "table" }}\nenv_file = "my.env"'
    with serving(web(extra, size=2), tmp_path) as lb:

        def value(name: str) -> str:
            return lb.get(f"/env?name={name}").body.decode()

        assert value("LBPROXY_POOL") == "web"
        assert value("LBPROXY_GENERATION") == "1"
        assert {value("LBPROXY_SLOT") for _ in range(6)} == {"1", "2"}
        assert {value("NODE_APP_INSTANCE") for _ in range(6)} <= {"0", "1", "2"}
        assert value("PYTHONUNBUFFERED") == "1"
        assert value("WEB_CONCURRENCY") == "1"
        assert value("FROM_FILE") == "quoted value"
        assert value("BOTH") == "table"
        assert (value("PORT") != "-") == (bind == "tcp")
        assert (value("HOST") != "-") == (bind == "tcp")
        assert (value("LBPROXY_SOCKET") != "-") == (bind == "unix")
        assert value("LISTEN_FDS") == ("1" if bind == "fd" else "-")


def test_a_command_is_a_list_or_shell_words_and_placeholders_are_filled_in(tmp_path: Path) -> None:
    app = tmp_path / "app dir"
    app.mkdir()
    (app / "run.sh").write_text('echo "args: $1|$2|$3"\nshift 3\nexec "$@"\n')
    command = "sh 'app dir/run.sh' 'slot {slot}' gen-{generation} {host}:{port} $brittle"
    with serving(web(command=command, size=1), tmp_path) as lb:
        port = lb.backends()[0]["address"]
        assert f"args: slot 1|gen-1|{port}" in lb.cli("logs").stdout
