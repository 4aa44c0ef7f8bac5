"""What a project's directory runs: recognised from its files, for `lbproxy init`.

A Procfile goes before a Python application, that before package.json. Reads files and runs nothing.
"""

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from lbproxy.cli import python_apps
from lbproxy.config import shell_syntax
from lbproxy.config.text_files import beginning_of

KINDS = (*python_apps.SERVERS, "node", "command")
LOOKED_FOR = "Procfile, manage.py, an application in *.py, package.json"

_WEB = re.compile(r"^web:\s*(.+?)\s*$", re.M)
_PORT = re.compile(r"\$\{PORT(?::?-[^}]*)?\}|\$PORT\b")
_HEALTH = re.compile(r"""["'](/(?:healthz?|livez?|readyz?|up|ping|_health|health_?check))["']""")
_NODE_FILES = ("server.js", "index.js", "app.js", "server.mjs", "index.mjs")


@dataclass(frozen=True, slots=True)
class Project:
    """`command`: as lbproxy takes it. `what`: "FastAPI with uvicorn". `found_in`: the file that told."""

    what: str
    command: str | list[str]
    found_in: str = ""
    env: dict[str, str] | None = None
    health_path: str | None = None
    note: str = ""  # what the user has to see to


def recognise(directory: Path, kind: str | None = None) -> Project | None:
    """The project, or one of `kind`; None if nothing is recognised."""
    if kind is None:
        return _procfile(directory) or _python(directory, None) or _node(directory)
    if kind == "node":
        return _node(directory) or Project(
            "node", "node server.js", note="server.js is a guess: it has to be the file that listens on PORT."
        )
    if kind == "command":
        return _procfile(directory) or Project(
            "a command",
            "./my-server --port {port}",
            note="Your command. {port} is filled in, and PORT is set in its environment.",
        )
    return _python(directory, kind)


def _procfile(directory: Path) -> Project | None:
    match = _WEB.search(beginning_of(directory / "Procfile"))
    if match is None:
        return None
    pieces = (piece.replace("{", "{{").replace("}", "}}") for piece in _PORT.split(match[1]))
    line = "{port}".join(pieces).replace("0.0.0.0:{port}", "{host}:{port}")
    command: str | list[str] = line
    try:
        if shell_syntax.find(line):
            command = ["sh", "-c", line if line.startswith("exec ") else f"exec {line}"]
            if any(sign in line for sign in ("&&", "||", ";", "|")):
                command = ["sh", "-c", line]
    except ValueError:  # quotes that do not fit: the shell will say so
        command = ["sh", "-c", line]
    return Project("web of the Procfile", command, "Procfile", health_path=_health(python_apps.python_files(directory)))


def _python(directory: Path, server: str | None) -> Project | None:
    depends = python_apps.dependencies(directory)
    app = python_apps.find_app(directory, server)
    if app is None:
        listed = next((name for name in python_apps.SERVERS if name in depends), None)
        known = python_apps.frameworks(depends)
        if server is None and listed is None and not known:
            return None
        server = server or listed or ("gunicorn" if known[0] in ("Django", "Flask", "Bottle") else "uvicorn")
        app = python_apps.PythonApp("app:app", "wsgi" if server == "gunicorn" else "asgi", (known or [""])[0])
        note = "app:app is a guess: it has to be MODULE:NAME of the application."
    else:
        server, note = server or python_apps.server_for(app, depends), ""
    return Project(
        f"{app.framework} with {server}" if app.framework else server,
        python_apps.command_for(app, server, directory),
        app.source or depends.get(server) or next(iter(depends.values()), ""),
        {"PYTHONPATH": app.python_path} if app.python_path else None,
        _health(python_apps.python_files(directory)),
        note,
    )


def _node(directory: Path) -> Project | None:
    try:
        package = json.loads(beginning_of(directory / "package.json"))
    except ValueError:
        return None
    if not isinstance(package, dict):
        return None
    scripts = package.get("scripts")
    start = scripts.get("start") if isinstance(scripts, dict) else None
    if isinstance(start, str) and start.strip():
        command = _script(directory, start.strip())
    else:
        main = package.get("main")
        names = [*([main] if isinstance(main, str) else []), *_NODE_FILES]
        file = next((name for name in names if (directory / name).is_file()), None)
        if file is None:
            return None
        command = f"node {shlex.quote(file)}"
    words = shlex.split(command)
    sources = [directory / word for word in words if word.endswith(("js", "ts")) and (directory / word).is_file()]
    told = "{port}" in command or any("PORT" in beginning_of(source) for source in sources)
    note = "" if told else "It has to listen on the port in PORT."
    return Project("node", command, "package.json", health_path=_health(sources), note=note)


def _script(directory: Path, start: str) -> str:
    """The command of `npm start`, without npm where that is possible: it would stand between lbproxy and the server."""
    try:
        words = shlex.split(start)
        plain = bool(words) and shell_syntax.find(start) is None and not set("{}*?~") & set(start)
    except ValueError:
        plain = False
    if plain and words[0] == "node":
        return start
    if plain and (directory / "node_modules" / ".bin" / words[0]).exists():
        return f"node_modules/.bin/{start}"
    return "npm start --silent"


def _health(files: list[Path]) -> str | None:
    """A path that the sources name and that sounds like a health check."""
    return next((match[1] for match in map(_HEALTH.search, map(beginning_of, files)) if match is not None), None)
