"""Find the application of a Python project, and the command that serves it: uvicorn, gunicorn, hypercorn or granian.

Reads files and imports nothing of the project. Knows neither lbproxy's configuration nor where its file goes.
"""

import os
import re
import shlex
import shutil
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lbproxy.config.text_files import beginning_of

SERVERS = ("uvicorn", "gunicorn", "hypercorn", "granian")
_FOR = {"asgi": ("uvicorn", "hypercorn", "granian"), "wsgi": ("gunicorn", "granian", "hypercorn")}

_ASGI = ("FastAPI", "Starlette", "Quart", "Litestar")
_WSGI = ("Flask", "Bottle")
_FRAMEWORKS = {name.lower(): name for name in ("Django", *_ASGI, *_WSGI)}
_MADE = re.compile(
    rf"^(\w+)\s*(?::[^=\n]+)?=\s*(?:\w+\.)*({'|'.join((*_ASGI, *_WSGI))})\(|^(\w+) = get_([aw]sgi)_application\(", re.M
)
_FACTORY = re.compile(r"^def ((?:create|make|build)_app)\(", re.M)
_PLAIN_ASGI = re.compile(r"^async def (\w+)\(\s*scope\b", re.M)
_PLAIN_WSGI = re.compile(r"^def (\w+)\(\s*(?:environ|env)\b[^)]*,[^)]*\)", re.M)
_SETTINGS_MODULE = re.compile(r"""DJANGO_SETTINGS_MODULE["'],\s*["']([\w.]+)\.settings[\w.]*["']""")
_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)")
_FIRST_FILES = ("asgi.py", "wsgi.py", "app.py", "main.py", "server.py")
_NOT_SEARCHED = {"venv", "env", "node_modules", "tests", "test", "build", "dist", "migrations", "docs", "site-packages"}
_MOST_FILES, _DEEPEST = 300, 4


@dataclass(frozen=True, slots=True)
class PythonApp:
    """`name`: as servers take it, `package.module:app`. `source`: the file, below the project."""

    name: str
    interface: str  # asgi | wsgi
    framework: str = ""
    source: str = ""
    is_factory: bool = False
    python_path: str = ""  # directory of the modules, where it is not the project's own


def find_app(project: Path, server: str | None = None) -> PythonApp | None:
    """The application of the project, or its likeliest one. `server`: the one that is asked for."""
    django = _django(project, server)
    found = [django] if django is not None else []
    for path in python_files(project):
        found += _apps_in(project, path)
    # An application that is there goes before one that has to be made.
    return next(iter(sorted(found, key=lambda app: app.is_factory)), None)


def dependencies(project: Path) -> dict[str, str]:
    """Names of what the project depends on, in lower case, and the file that says so."""
    found: dict[str, str] = {}
    for path in [*project.glob("requirements*.txt"), *project.glob("requirements/*.txt")]:
        for line in beginning_of(path).splitlines():
            _note(found, line, path.name)
    for file in ("pyproject.toml", "Pipfile"):
        for line in _declared(project / file):
            _note(found, line, file)
    return found


def server_for(app: PythonApp, depends: dict[str, str]) -> str:
    known = _FOR[app.interface]
    listed = [name for name in known if name in depends]
    if not listed and app.interface == "asgi" and "gunicorn" in depends:
        return "gunicorn"
    return listed[0] if listed else known[0]


def command_for(app: PythonApp, server: str, project: Path) -> str:
    """The command as lbproxy takes it."""
    program = _program(server, project)
    name, bind = app.name, "--host {host} --port {port}"
    if server == "uvicorn":
        more = " --factory" * app.is_factory + " --interface wsgi" * (app.interface == "wsgi")
        return f"{program} {name}{more} {bind}"
    if server == "granian":
        return f"{program} --interface {app.interface} {name}{' --factory' * app.is_factory} {bind}"
    if server == "hypercorn" and app.interface == "wsgi":
        name = f"wsgi:{name}"
    called = f"'{name}()'" if app.is_factory else name
    if server == "gunicorn":
        worker = " -k uvicorn.workers.UvicornWorker" * (app.interface == "asgi")
        return f"{program} {called}{worker} --bind {{host}}:{{port}}"
    return f"{program} {called} --bind {{host}}:{{port}}"


def _program(server: str, project: Path) -> str:
    """The server of the project's virtual environment, else the one in PATH, else the one that came with lbproxy."""
    for venv in (".venv", "venv"):
        if (project / venv / "bin" / server).exists():
            return f"{venv}/bin/{server}"
    beside = os.path.join(os.path.dirname(sys.executable), server)
    return shlex.quote(beside) if shutil.which(server) is None and os.access(beside, os.X_OK) else server


def python_files(project: Path) -> list[Path]:
    """The project's own files, those with a usual name and high up first."""
    found = []
    for folder, folders, files in os.walk(project):
        depth = len(Path(folder).relative_to(project).parts)
        folders[:] = sorted(
            name
            for name in folders
            if depth < _DEEPEST
            and not name.startswith(".")
            and name not in _NOT_SEARCHED
            and not os.path.exists(os.path.join(folder, name, "pyvenv.cfg"))
        )
        found += [(depth, Path(folder, name)) for name in sorted(files) if name.endswith(".py")]
        if len(found) > _MOST_FILES:
            break
    usual = {name: number for number, name in enumerate(_FIRST_FILES)}
    found.sort(key=lambda one: (one[0], usual.get(one[1].name, len(usual)), one[1]))
    return [path for _, path in found[:_MOST_FILES]]


def frameworks(depends: dict[str, str]) -> list[str]:
    return [name for key, name in _FRAMEWORKS.items() if key in depends]


def _django(project: Path, server: str | None) -> PythonApp | None:
    manage = project / "manage.py"
    match = _SETTINGS_MODULE.search(beginning_of(manage))
    if match is None:
        return None
    package = match[1].split(".")[0] if match[1].endswith(".settings") else match[1]
    package = package.removesuffix(".settings")
    folder = project.joinpath(*package.split("."))
    depends = [server] if server is not None else list(dependencies(project))
    takes_asgi = any(name in depends for name in ("uvicorn", "hypercorn", "daphne")) and "gunicorn" not in depends
    is_asgi = (folder / "asgi.py").exists() and (takes_asgi or not (folder / "wsgi.py").exists())
    interface = "asgi" if is_asgi else "wsgi"
    return PythonApp(f"{package}.{interface}:application", interface, "Django", "manage.py")


def _apps_in(project: Path, path: Path) -> Iterator[PythonApp]:
    text = beginning_of(path)
    relative = path.relative_to(project)
    parts = relative.with_suffix("").parts
    python_path = "src" if parts[0] == "src" else ""
    parts = parts[1:] if python_path else parts
    if not parts or not all(part.isidentifier() for part in parts):
        return
    module = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
    found: list[tuple[str, str, str, bool]] = []
    for match in _MADE.finditer(text):
        if match[3]:
            found.append((match[3], match[4], "Django", False))
        else:
            found.append((match[1], "asgi" if match[2] in _ASGI else "wsgi", match[2], False))
    made = next((name for name in (*_ASGI, *_WSGI) if f"{name}(" in text), None)
    if made is not None:
        interface = "asgi" if made in _ASGI else "wsgi"
        found += [(name, interface, made, True) for name in _FACTORY.findall(text)]
    found += [(name, "asgi", "", False) for name in _PLAIN_ASGI.findall(text)]
    found += [(name, "wsgi", "", False) for name in _PLAIN_WSGI.findall(text)]
    found.sort(key=lambda one: ("app", "application").index(one[0]) if one[0] in ("app", "application") else 2)
    for name, interface, framework, is_factory in found:
        yield PythonApp(f"{module}:{name}", interface, framework, str(relative), is_factory, python_path)


def _declared(path: Path) -> Iterator[str]:
    """The dependencies of a pyproject.toml (PEP 621, PEP 735, Poetry) or a Pipfile, as requirements."""
    try:
        document = tomllib.loads(beginning_of(path))
    except tomllib.TOMLDecodeError:
        return
    project = _table(document.get("project"))
    lists = [project.get("dependencies"), *_table(project.get("optional-dependencies")).values()]
    lists += _table(document.get("dependency-groups")).values()
    for listed in lists:
        yield from (line for line in (listed if isinstance(listed, list) else ()) if isinstance(line, str))
    yield from _table(_table(_table(document.get("tool")).get("poetry")).get("dependencies"))
    yield from _table(document.get("packages"))


def _note(found: dict[str, str], line: str, file: str) -> None:
    match = _REQUIREMENT.match(line)
    if match is not None and not line.lstrip().startswith("#"):
        found.setdefault(match[1].lower().replace("_", "-"), file)
        if match[1].lower() == "fastapi" and "[standard]" in line:
            found.setdefault("uvicorn", file)


def _table(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}
