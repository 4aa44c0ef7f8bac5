"""The rules of the house (DESIGN.md 3, STYLE.md), read from the source with `ast`: nothing here runs lbproxy's code."""

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

from support.each import each

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lbproxy"
MODULES = sorted(PACKAGE.rglob("*.py"))
OURS = sorted(path for room in ("lbproxy", "tests", "loadtest", "configs") for path in (ROOT / room).rglob("*.py"))

# A room may import itself and what lies on a lower floor; so siblings on one floor never meet.
FLOORS = {
    "values": 0,
    "wire": 1,
    "policy": 1,
    "config": 2,
    "telemetry": 2,
    "tls": 2,
    "link": 3,
    "certificates": 3,
    "http_client": 3,
    "http2_client": 3,
    "worker": 4,
    "supervise": 4,
    "acme": 4,
    "control": 5,
    "cli": 6,
}
# The same inside the worker. What does not stand in a room of its own is named by its file.
WORKER_FLOORS = {
    "io": 0,
    "tally": 0,
    "leases": 1,
    "backends": 1,
    "front": 2,
    "failures": 2,
    "error_reports": 2,
    "events_to_control": 2,
    "reply": 2,
    "context": 3,
    "ending": 4,
    "handover": 4,
    "express": 5,
    "task": 5,
    "relay": 5,
    "http2": 6,
    "lanes": 7,
    "connection_list": 7,
    "giving": 8,
    "taking": 8,
    "main": 9,
    "__main__": 10,
}
DEEPEST = 3  # classes of ours above each other
VALUES = ("address", "model", "settings", "errors", "descriptors", "privileges")

# Each third-party library has one door.
DOORS = {
    "h11": "wire/http1.py",
    "pydantic": "config/",
    "pydantic_core": "config/",
    "click": "cli/",
    "rich": "cli/",
    "prometheus_client": "telemetry/metrics.py",
    "redis": "control/redis_publisher.py",
    "ssl": "tls/",
    "acme": "acme/",
    "josepy": "acme/",
    "cryptography": "acme/",
}

EXTRAS = ("redis", "acme")  # libraries that are imported only where the configuration asks for them

# Bytes and decisions: no I/O, no clock, no dice (but for the request id that wire/headers.py makes).
NOT_IN_SANS_IO = {"trio", "socket", "select", "ssl", "subprocess", "threading", "signal", "time", "random", "secrets"}
THROWS_DICE = "wire/headers.py"

BANNED_NAMES = {"utils", "util", "helpers", "helper", "common", "base", "manager", "core", "misc"}
BANNED_IMPORTS = {"asyncio", "selectors", "anyio", "requests", "httpx"}
MOST_LINES = 400
MOST_POSITIONAL = 5
DURATION = re.compile(r"(timeout|interval|delay|grace|duration|elapsed|backoff|deadline_in|window|age|uptime)$")

# Modules without a test file of their own: they say values, or start a process that end-to-end tests run.
WITHOUT_TESTS = {"__init__", "__main__", "settings", "errors", "messages", "context"}
WITHOUT_TESTS |= {"event", "events", "certificate_events", "upgrade_events", "owner", "stream_end"}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def room_of(path: Path) -> str | None:
    """None for the package's own `__init__` and `__main__`."""
    first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if first in VALUES:
        return "values"
    return None if first in ("__init__", "__main__") else first


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


@cache
def nodes_of(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(tree_of(path)))


@cache
def imports_of(path: Path) -> tuple[str, ...]:
    """Dotted names, `from a import b` as "a.b"."""
    names: list[str] = []
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            names += (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}:{node.lineno}: imports are absolute"
            names += (f"{node.module}.{alias.name}" for alias in node.names)
    return tuple(names)


def test_every_room_has_a_floor() -> None:
    assert {room_of(path) for path in MODULES} - {None} <= set(FLOORS)


@each(MODULES, name=name_of)
def test_imports_point_strictly_down(module: Path) -> None:
    room = room_of(module)
    if room is None:
        return
    for name in imports_of(module):
        parts = name.split(".")
        if parts[0] != "lbproxy" or name in ("lbproxy", "lbproxy.__version__"):
            continue
        target = "values" if parts[1] in VALUES else parts[1]
        assert target == room or FLOORS[target] < FLOORS[room], f"{name_of(module)} imports {name}"


@each(MODULES, name=name_of)
def test_imports_inside_the_worker_point_strictly_down(module: Path) -> None:
    if room_of(module) != "worker":
        return
    place = worker_place(".".join(module.relative_to(PACKAGE).with_suffix("").parts))
    for name in imports_of(module):
        if name.startswith("lbproxy.worker."):
            target = worker_place(name.removeprefix("lbproxy."))
            fits = target == place or WORKER_FLOORS[target] < WORKER_FLOORS[place]
            assert fits, f"{name_of(module)} imports {name}"


def worker_place(name: str) -> str:
    """ "express" of "worker.express.reply", "lanes" of "worker.lanes"; the package itself is the top."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in WORKER_FLOORS else "__main__"


def test_no_module_imports_itself_by_a_detour() -> None:
    """Not even for a type checker: a circle is one module in several files."""
    names = {".".join(("lbproxy", *path.relative_to(PACKAGE).with_suffix("").parts)): path for path in MODULES}
    graph = {
        name: {found for wanted in imports_of(path) for found in (wanted, wanted.rpartition(".")[0]) if found in names}
        for name, path in names.items()
    }
    for name in graph:
        reached, ahead = set(), set(graph[name])
        while ahead:
            reached |= ahead
            ahead = {further for found in ahead for further in graph[found]} - reached
        assert name not in reached, f"{name} imports itself, through {sorted(reached)}"


def test_no_chain_of_classes_is_deep() -> None:
    bases: dict[str, list[str]] = {}
    for path in MODULES:
        for node in nodes_of(path):
            if isinstance(node, ast.ClassDef):
                bases[node.name] = [base.id for base in node.bases if isinstance(base, ast.Name)]

    def depth(name: str) -> int:
        return 1 + max((depth(base) for base in bases[name] if base in bases and base != name), default=0)

    assert {name: depth(name) for name in bases if depth(name) > DEEPEST} == {}


def test_worker_and_control_never_meet() -> None:
    forbidden = {"worker": {"control", "supervise"}, "supervise": {"worker", "control"}, "control": {"worker"}}
    for path in MODULES:
        for name in imports_of(path):
            target = name.partition(".")[2].partition(".")[0] if name.startswith("lbproxy.") else ""
            assert target not in forbidden.get(room_of(path) or "", set()), f"{name_of(path)} imports {name}"


@each(MODULES, name=name_of)
def test_third_party_libraries_have_one_door(module: Path) -> None:
    place = str(module.relative_to(PACKAGE))
    for name in imports_of(module):
        library = name.split(".")[0]
        if library in DOORS:
            assert place.startswith(DOORS[library]), f"{place} imports {library}: its door is {DOORS[library]}"


@each(MODULES, name=name_of)
def test_bytes_and_decisions_do_no_input_and_no_output(module: Path) -> None:
    if room_of(module) in ("values", "wire", "policy"):
        allowed = {"random"} if str(module.relative_to(PACKAGE)) == THROWS_DICE else set()
        assert not {name.split(".")[0] for name in imports_of(module)} & NOT_IN_SANS_IO - allowed


@each(MODULES, name=name_of)
def test_banned_libraries_are_absent(module: Path) -> None:
    assert not {name.split(".")[0] for name in imports_of(module)} & BANNED_IMPORTS


@each(MODULES, name=name_of)
def test_inits_import_nothing(module: Path) -> None:
    if module.name == "__init__.py":
        assert not list(imports_of(module)), "a client command would pay for it"
        assert module.parent == PACKAGE or module.read_text() == ""


@each(MODULES, name=name_of)
def test_every_module_says_what_it_knows(module: Path) -> None:
    if module.name != "__init__.py":
        assert ast.get_docstring(tree_of(module)), "a module begins with what it knows and what it must not know"


@each(MODULES, name=name_of)
def test_every_module_has_a_test_file(module: Path) -> None:
    if module.stem in WITHOUT_TESTS:
        return
    folder = ROOT / "tests" / module.relative_to(PACKAGE).parent
    assert (folder / f"test_{module.stem}.py").exists(), f"no {name_of(folder)}/test_{module.stem}.py"


@each(MODULES, name=name_of)
def test_nothing_is_called_utils(module: Path) -> None:
    assert module.stem not in BANNED_NAMES
    for node in nodes_of(module):
        if isinstance(node, ast.ClassDef):
            last = re.findall(r"[A-Z][a-z]*|$", node.name)[-2 if len(node.name) > 1 else 0].lower()
            assert last not in BANNED_NAMES, f"class {node.name}"


@each(MODULES, name=name_of)
def test_nothing_prints_outside_cli(module: Path) -> None:
    if room_of(module) != "cli":
        for node in nodes_of(module):
            assert not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print")


@each(MODULES, name=name_of)
def test_nobody_sleeps_and_looks(module: Path) -> None:
    for name in imports_of(module):
        assert name != "time.sleep"
    for node in nodes_of(module):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) != ("time", "sleep"), f"line {node.lineno}"


@each(MODULES, name=name_of)
def test_functions_take_at_most_five_positional_arguments(module: Path) -> None:
    for node in nodes_of(module):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and room_of(module) != "cli":
            names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
            taken = [name for name in names if name not in ("self", "cls")]
            assert len(taken) <= MOST_POSITIONAL, f"line {node.lineno}: {node.name}{tuple(taken)}"


@each(MODULES, name=name_of)
def test_durations_say_that_they_are_seconds(module: Path) -> None:
    for node in nodes_of(module):
        if isinstance(node, ast.arg):
            name, annotation, line = node.arg, node.annotation, node.lineno
        elif isinstance(node, ast.AnnAssign):
            name, annotation, line = ast.unparse(node.target), node.annotation, node.lineno
        else:
            continue
        if annotation is not None and re.match(r"(float|int)\b", ast.unparse(annotation)):
            assert not DURATION.search(name), f"line {line}: {name} is a duration: {name}_s"


@each(MODULES, name=name_of)
def test_no_async_function_without_an_await(module: Path) -> None:
    for scope in nodes_of(module):
        if isinstance(scope, ast.Module | ast.ClassDef):
            functions = [node for node in scope.body if isinstance(node, ast.AsyncFunctionDef) and not _is_stub(node)]
            # One of a family that is called alike, such as the answers of an API, need not await if others do.
            family = {ast.unparse(node.args) for node in functions if _awaits(node)}
            for node in functions:
                assert ast.unparse(node.args) in family, f"line {node.lineno}: {node.name} never awaits"


def _awaits(node: ast.AsyncFunctionDef) -> bool:
    return any(isinstance(inner, ast.Await | ast.AsyncFor | ast.AsyncWith | ast.Yield) for inner in ast.walk(node))


def _is_stub(node: ast.AsyncFunctionDef) -> bool:
    """Of a Protocol or of an abstract class: nothing but a docstring, an ellipsis, a raise."""
    return all(
        isinstance(part, ast.Raise) or (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant))
        for part in node.body
    )


@each(OURS, name=name_of)
def test_no_file_is_longer_than_four_hundred_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MOST_LINES


@each(sorted((ROOT / "tests").rglob("test_*.py")), name=name_of)
def test_tests_have_names_that_are_theirs_alone(path: Path) -> None:
    """A second function of the same name would silently replace the first."""
    for scope in nodes_of(path):
        if isinstance(scope, ast.Module | ast.ClassDef):
            names = [node.name for node in scope.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
            assert len(names) == len(set(names)), sorted(name for name in names if names.count(name) > 1)


@each(sorted((ROOT / "configs").glob("*.toml")), name=name_of)
def test_every_configuration_that_we_ship_loads(path: Path) -> None:
    from lbproxy.config.load import load

    assert load(str(path)).pools


def test_client_commands_stay_light() -> None:
    """`lbproxy status` answers within 150 ms: it cannot afford these."""
    script = """
import sys
from lbproxy.cli.main import COMMANDS, lbproxy
import importlib
for name in ("status", "reload", "stop", "logs", "events", "version"):
    importlib.import_module(f"lbproxy.cli.{COMMANDS[name]}")
print(*sorted({"trio", "pydantic", "h11", "psutil", "prometheus_client"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_ci_runs_the_command_that_the_readme_shows() -> None:
    marker = "<!-- tests: .ci/run runs exactly this -->"
    assert marker in (ROOT / ".ci" / "run").read_text()
    _, _, behind = (ROOT / "README.md").read_text().partition(marker)
    assert re.match(r"\n+```sh\n[^`]*\bpytest\b[^`]*```", behind)


def test_the_readme_shows_the_states_of_a_backend() -> None:
    from lbproxy.policy.lifecycle import diagram

    marker = "<!-- states: a test compares this with lifecycle.diagram() -->"
    _, _, behind = (ROOT / "README.md").read_text().partition(marker)
    assert behind.split("```")[1].strip() == diagram().strip()


def test_the_readme_shows_the_phases_of_an_express_connection() -> None:
    from lbproxy.worker.express.phase import diagram

    marker = "<!-- phases: a test compares this with phase.diagram() -->"
    _, _, behind = (ROOT / "README.md").read_text().partition(marker)
    assert behind.split("```")[1].strip() == diagram().strip()


def test_dependencies_are_the_ones_with_a_door() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *(line for extra in EXTRAS for line in extras[extra])]
    declared = {re.split(r"[<>=\[ ]", line)[0].replace("-", "_") for line in lines}
    imported = {name.split(".")[0] for path in MODULES for name in imports_of(path)}
    third_party = imported - set(sys.stdlib_module_names) - {"lbproxy"}
    assert third_party <= declared | {"pydantic_core"}
