import json
from pathlib import Path
from typing import Any

import pytest

from lbproxy.cli.project import recognise


def package(project: Path, **values: Any) -> None:
    (project / "package.json").write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("node server.js", "node server.js"),
        ("gunicorn app:app -b 0.0.0.0:$PORT", "gunicorn app:app -b {host}:{port}"),
        ("bin/serve -p ${PORT:-8000}", "bin/serve -p {port}"),
        ("bin/serve -p $PORT -n ${N}", ["sh", "-c", "exec bin/serve -p {port} -n ${{N}}"]),
        ("cd app && ./serve $PORT", ["sh", "-c", "cd app && ./serve {port}"]),
        ("./serve 'it", ["sh", "-c", "./serve 'it"]),
    ],
)
def test_the_web_line_of_a_procfile_is_the_command(line: str, command: Any, tmp_path: Path) -> None:
    (tmp_path / "Procfile").write_text(f"release: ./migrate\nweb: {line}\nworker: ./work\n")
    (tmp_path / "app.py").write_text("async def app(scope, receive, send): ...\n")
    found = recognise(tmp_path)
    assert found is not None
    assert (found.command, found.found_in) == (command, "Procfile")


@pytest.mark.parametrize(
    ("values", "command"),
    [
        ({"scripts": {"start": "node --max-old-space-size=200 server.js"}}, "node --max-old-space-size=200 server.js"),
        ({"scripts": {"start": "next start"}}, "node_modules/.bin/next start"),
        ({"scripts": {"start": "NODE_ENV=production node server.js"}}, "npm start --silent"),
        ({"scripts": {"start": "ts-node server.ts"}}, "npm start --silent"),
        ({"main": "lib/x.js"}, "node server.js"),
        ({"main": "main.js"}, "node main.js"),
    ],
)
def test_a_node_project_is_started_without_npm_where_that_is_possible(
    values: dict[str, Any], command: str, tmp_path: Path
) -> None:
    package(tmp_path, **values)
    (tmp_path / "node_modules" / ".bin").mkdir(parents=True)
    (tmp_path / "node_modules" / ".bin" / "next").touch()
    for name in ("server.js", "main.js"):
        (tmp_path / name).touch()
    found = recognise(tmp_path)
    assert found is not None
    assert found.command == command
    assert found.note == "It has to listen on the port in PORT."


def test_a_server_that_reads_port_needs_no_note_and_a_health_check_is_found(tmp_path: Path) -> None:
    package(tmp_path, scripts={"start": "node server.js"})
    (tmp_path / "server.js").write_text("if (url === '/healthz') ...; listen(process.env.PORT)")
    found = recognise(tmp_path)
    assert found is not None
    assert (found.note, found.health_path) == ("", "/healthz")


def test_dependencies_alone_tell_the_server_but_not_the_application(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("flask\ngranian\n")
    found = recognise(tmp_path)
    assert found is not None
    assert found.what == "Flask with granian"
    assert "app:app is a guess" in found.note


@pytest.mark.parametrize("kind", ["uvicorn", "gunicorn", "hypercorn", "granian", "command"])
def test_what_is_asked_for_is_there_even_in_an_empty_directory(kind: str, tmp_path: Path) -> None:
    found = recognise(tmp_path, kind)
    assert found is not None
    assert found.note
    assert "{port}" in found.command


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"scripts": 1}', '{"scripts": {"start": 3}, "main": 4}'])
def test_nothing_is_recognised_in_nonsense(text: str, tmp_path: Path) -> None:
    assert recognise(tmp_path) is None
    (tmp_path / "package.json").write_text(text)
    (tmp_path / "Procfile").write_text("worker: ./work\n")
    assert recognise(tmp_path) is None
