from pathlib import Path

import pytest

from lbproxy.cli.python_apps import PythonApp, command_for, dependencies, find_app, python_files, server_for

FASTAPI = "from fastapi import FastAPI\n\napp: FastAPI = FastAPI(title='x')\n"


def write(project: Path, **files: str) -> Path:
    """`a__b_py` is a/b.py."""
    for name, text in files.items():
        path = project / (name.replace("__", "/").removesuffix("_py") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return project


@pytest.mark.parametrize(
    ("files", "app"),
    [
        ({"shop__main_py": FASTAPI}, PythonApp("shop.main:app", "asgi", "FastAPI", "shop/main.py")),
        (
            {"hello_py": "import flask\nsite = flask.Flask(__name__)\n"},
            PythonApp("hello:site", "wsgi", "Flask", "hello.py"),
        ),
        (
            {"web_py": "from flask import Flask\ndef create_app(x=None):\n    app = Flask(__name__)\n"},
            PythonApp("web:create_app", "wsgi", "Flask", "web.py", is_factory=True),
        ),
        ({"app_py": "async def app(scope, receive, send): ...\n"}, PythonApp("app:app", "asgi", "", "app.py")),
        (
            {"wsgi_py": "def application(environ, start_response): ...\n"},
            PythonApp("wsgi:application", "wsgi", "", "wsgi.py"),
        ),
        (
            {"manage_py": 'os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")', "mysite__wsgi_py": ""},
            PythonApp("mysite.wsgi:application", "wsgi", "Django", "manage.py"),
        ),
        (
            {"manage_py": "setdefault('DJANGO_SETTINGS_MODULE', 'conf.settings.dev')", "conf__asgi_py": ""},
            PythonApp("conf.asgi:application", "asgi", "Django", "manage.py"),
        ),
        ({"notes_py": "print('nothing')"}, None),
    ],
)
def test_the_application_is_found(files: dict[str, str], app: PythonApp | None, tmp_path: Path) -> None:
    assert find_app(write(tmp_path, **files)) == app


def test_django_is_served_by_way_of_the_interface_that_the_server_takes(tmp_path: Path) -> None:
    write(
        tmp_path, manage_py="setdefault('DJANGO_SETTINGS_MODULE', 'site.settings')", site__asgi_py="", site__wsgi_py=""
    )
    for server, name in (("uvicorn", "site.asgi:application"), ("gunicorn", "site.wsgi:application")):
        found = find_app(tmp_path, server)
        assert found is not None
        assert found.name == name
    (tmp_path / "requirements.txt").write_text("django\nhypercorn\n")
    found = find_app(tmp_path)
    assert found is not None
    assert found.name == "site.asgi:application"


def test_modules_below_src_need_a_python_path(tmp_path: Path) -> None:
    (tmp_path / "src" / "shop").mkdir(parents=True)
    (tmp_path / "src" / "shop" / "__init__.py").write_text(FASTAPI)
    assert find_app(tmp_path) == PythonApp("shop:app", "asgi", "FastAPI", "src/shop/__init__.py", python_path="src")


def test_an_application_goes_before_a_factory_and_main_files_before_others(tmp_path: Path) -> None:
    write(
        tmp_path, aaa_py=FASTAPI, main_py=FASTAPI, app_py="from fastapi import FastAPI\ndef create_app(): FastAPI()\n"
    )
    found = find_app(tmp_path)
    assert found is not None
    assert found.name == "main:app"


def test_the_files_of_others_are_not_searched(tmp_path: Path) -> None:
    write(tmp_path, venv__app_py=FASTAPI, tests__app_py=FASTAPI, own__x_py=FASTAPI)
    (tmp_path / "own" / "pyvenv.cfg").touch()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "app.py").write_text(FASTAPI)
    assert python_files(tmp_path) == []


def test_dependencies_are_read_wherever_they_are_declared(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("# gunicorn\nFlask==3 ; python_version > '3'\n-r other.txt\n")
    (tmp_path / "pyproject.toml").write_text("""
        [project]
        dependencies = ["fastapi[standard]>=0.1"]
        [project.optional-dependencies]
        web = ["granian"]
        [dependency-groups]
        dev = ["pytest", { include-group = "x" }]
        [tool.poetry.dependencies]
        Hypercorn = "*"
        """)
    assert {"flask", "fastapi", "uvicorn", "granian", "pytest", "hypercorn"} == set(dependencies(tmp_path))
    (tmp_path / "pyproject.toml").write_text("project = 1 [")
    assert set(dependencies(tmp_path)) == {"flask"}


@pytest.mark.parametrize(
    ("interface", "depends", "server"),
    [
        ("asgi", [], "uvicorn"),
        ("wsgi", [], "gunicorn"),
        ("asgi", ["hypercorn"], "hypercorn"),
        ("wsgi", ["granian"], "granian"),
        ("asgi", ["gunicorn", "uvicorn"], "uvicorn"),
        ("asgi", ["gunicorn"], "gunicorn"),
    ],
)
def test_the_server_is_one_that_the_project_depends_on(interface: str, depends: list[str], server: str) -> None:
    assert server_for(PythonApp("app:app", interface), dict.fromkeys(depends, "")) == server


@pytest.mark.parametrize(
    ("server", "app", "command"),
    [
        ("uvicorn", PythonApp("a:b", "asgi"), "uvicorn a:b --host {host} --port {port}"),
        ("uvicorn", PythonApp("a:b", "asgi", is_factory=True), "uvicorn a:b --factory --host {host} --port {port}"),
        ("gunicorn", PythonApp("a:b", "wsgi", is_factory=True), "gunicorn 'a:b()' --bind {host}:{port}"),
        (
            "gunicorn",
            PythonApp("a:b", "asgi"),
            "gunicorn a:b -k uvicorn.workers.UvicornWorker --bind {host}:{port}",
        ),
        ("hypercorn", PythonApp("a:b", "wsgi"), "hypercorn wsgi:a:b --bind {host}:{port}"),
        ("hypercorn", PythonApp("a:b", "wsgi", is_factory=True), "hypercorn 'wsgi:a:b()' --bind {host}:{port}"),
        ("granian", PythonApp("a:b", "asgi"), "granian --interface asgi a:b --host {host} --port {port}"),
    ],
)
def test_each_server_has_its_own_arguments(server: str, app: PythonApp, command: str, tmp_path: Path) -> None:
    bin_ = tmp_path / ".venv" / "bin"
    bin_.mkdir(parents=True)
    (bin_ / server).touch()
    assert command_for(app, server, tmp_path) == f".venv/bin/{command}"
