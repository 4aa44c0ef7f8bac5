"""`init` in five kinds of project: what it writes is accepted by `check`, and two of them are really served."""

import json
import os
from pathlib import Path

import pytest
from support.serve import serving

from lbproxy.cli.main import run

ASGI = """
async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"asgi"})
"""
NODE = """
const server = require('http').createServer((request, response) => response.end(
  request.url === '/healthz' ? 'ok' : process.env.SECRET))
server.listen(process.env.PORT, '127.0.0.1')
process.on('SIGTERM', () => server.close(() => process.exit(0)))
"""
PROJECTS = {
    "asgi": {"requirements.txt": "uvicorn", "app.py": ASGI},
    "fastapi": {
        "pyproject.toml": '[project]\nname = "x"\ndependencies = ["fastapi[standard]"]',
        "shop/main.py": "from fastapi import FastAPI\napp = FastAPI()\n@app.get('/healthz')\ndef h(): ...",
    },
    "django": {
        "requirements.txt": "Django>=5\ngunicorn",
        "manage.py": 'os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")',
        "mysite/wsgi.py": "application = get_wsgi_application()",
    },
    "node": {"package.json": '{"scripts": {"start": "node server.js"}}', "server.js": NODE, ".env": "SECRET=from-env"},
    "procfile": {"Procfile": "web: ./serve --port $PORT ${MORE}\n", "serve": "#!/bin/sh\n"},
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(project: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)


@pytest.mark.parametrize("kind", PROJECTS)
def test_what_it_writes_is_short_commented_and_accepted(
    kind: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(here, PROJECTS[kind])
    assert run(["init"], {}) == 0
    assert capsys.readouterr().out.startswith("wrote ./lb.toml: ")
    text = (here / "lb.toml").read_text()
    assert 9 <= len(text.splitlines()) <= 14
    assert text.count("#") >= 4
    assert run(["check", "--json"], {}) == 0
    warnings = json.loads(capsys.readouterr().out)["warnings"]
    expected = ("there is no program", "proxy.user: ")  # the second: where root runs the tests
    assert not [line for line in warnings if not any(part in str(line) for part in expected)]


@pytest.mark.parametrize(
    ("kind", "answer"), [("asgi", b"asgi"), pytest.param("node", b"from-env", marks=pytest.mark.peer("node"))]
)
def test_what_it_writes_serves(kind: str, answer: bytes, here: Path) -> None:
    write(here, PROJECTS[kind])
    assert run(["init", "-q"], {}) == 0
    text = (here / "lb.toml").read_text()
    text = text.replace('address = ":8080"', 'address = "127.0.0.1:$port"').replace('"auto"', "1")
    with serving(text, here) as lb:
        assert lb.get("/").body == answer
        assert lb.cli("reload").returncode == 0
        assert lb.get("/").body == answer


def test_an_existing_file_is_never_touched(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(here, {**PROJECTS["asgi"], "lb.toml": "mine"})
    (here / "dangling").symlink_to("nowhere")
    for args in ([], ["-o", "lb.toml"], ["-o", "dangling"], ["--for", "node", "-c", "lb.toml"]):
        assert run(["init", *args], {}) == 1
    err = capsys.readouterr().err
    assert err.splitlines()[0] == "lbproxy: ./lb.toml is there already, and init changes no file (-o names another one)"
    assert (here / "lb.toml").read_text() == "mine"
    assert not (here / "nowhere").exists()


def test_a_file_elsewhere_names_the_project(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(here, PROJECTS["asgi"])
    (here / "etc").mkdir()
    assert run(["init", "-o", "etc/my.toml"], {}) == 0
    assert "next: lbproxy check -c etc/my.toml, lbproxy serve -c etc/my.toml" in capsys.readouterr().out
    assert 'directory = ".."\n' in (here / "etc/my.toml").read_text()
    assert run(["check", "-c", "etc/my.toml"], {}) == 0


def test_it_can_be_printed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["init", "--for", "command", "-o", "-"], {}) == 0
    assert 'command = "./my-server --port {port}"\n' in capsys.readouterr().out
    assert os.listdir(here) == []


def test_an_env_file_that_lbproxy_cannot_read_stays_out(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(here, {**PROJECTS["node"], ".env": "what is this"})
    assert run(["init"], {}) == 0
    assert '\n# env_file = ".env"' in (here / "lb.toml").read_text()


def test_an_unknown_project_is_asked_about(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["init"], {}) == 1
    assert "lbproxy init --for uvicorn|gunicorn|hypercorn|granian|node|command" in capsys.readouterr().err
    assert run(["init", "--for", "apache"], {}) == 2
    assert run(["init", "-o", "no/such/directory/lb.toml", "--for", "command"], {}) == 1
    assert "cannot be written: No such file or directory" in capsys.readouterr().err
    assert os.listdir(here) == []


def test_a_unit_is_printed_and_nothing_written(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["init", "--systemd"], {}) == 0
    assert f" serve -c {here}/lb.toml\n" in capsys.readouterr().out
    assert os.listdir(here) == []
    (here / "lb.toml").write_text(
        '[proxy]\nshutdown_timeout = "2m"\n[[listener]]\naddress = ":1"\n[pool.web]\ntargets = ["127.0.0.1:9"]\n'
    )
    assert run(["init", "--systemd"], {}) == 0
    assert "\nTimeoutStopSec=135s\n" in capsys.readouterr().out
