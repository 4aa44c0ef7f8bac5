"""`lbproxy init`: a first configuration for the project in this directory, a systemd unit, and files that deploy it."""

import os
from pathlib import Path

import click

from lbproxy.cli.options import DEFAULT_CONFIG, Fail, Options, with_options
from lbproxy.cli.project import KINDS, LOOKED_FOR, Project, recognise

STDOUT = "-"
_STOP_MORE_S = 15.0  # for systemd's TimeoutStopSec, on top of shutdown_timeout
_SHUTDOWN_S = 30.0  # the default of shutdown_timeout
_COLUMN = 34  # of the comments behind short lines


@click.command(short_help="Write a first configuration for this project.")
@click.option("--for", "kind", type=click.Choice(KINDS), help="What serves it, if it is not recognised.")
@click.option("--systemd", is_flag=True, help="Print a systemd unit instead.")
@click.option("--compose", is_flag=True, help="Write Dockerfile, compose.yaml and .dockerignore, too.")
@click.option("--kubernetes", is_flag=True, help="Write kubernetes.yaml, too.")
@click.option("--github", is_flag=True, help="Write .github/workflows/deploy.yml and deploy.sh, too.")
@click.option(
    "-o", "--output", type=click.Path(), metavar="FILE", help="The file to write [./lb.toml]; - is standard output."
)
@with_options
def init(options: Options, kind: str | None, systemd: bool, output: str | None, **wanted: bool) -> int:
    """Write a configuration of about ten lines for the project in the working directory. An existing file is never
    touched.

    The files of --compose, --kubernetes and --github have the project's name (its directory's), command and port: those
    of its configuration, which is written first where it is missing.

    Recognised are a Procfile, Django, Flask, FastAPI and other Python applications with uvicorn, gunicorn, hypercorn or
    granian, and package.json.
    """
    file = output or options.config_path
    if systemd:
        if any(wanted.values()):
            raise click.UsageError("--systemd only prints: it cannot be combined with files to write")
        print(_unit(file), end="")
        return 0
    here = Path.cwd()
    if any(wanted.values()):
        from lbproxy.cli.init_deployment import refuse_existing, write_files

        if file == STDOUT:
            raise click.UsageError("-o - only prints: it cannot be combined with files to write")
        names = [name for name in wanted if wanted[name]]
        refuse_existing(here, names)
        if not os.path.lexists(file):
            _first_configuration(options, kind, file, here)
        write_files(options, file, here, names)
        return 0
    return _first_configuration(options, kind, file, here)


def _first_configuration(options: Options, kind: str | None, file: str, here: Path) -> int:
    project = recognise(here, kind)
    if project is None:
        asked = "no package.json that says what to start" if kind == "node" else f"nothing that runs ({LOOKED_FOR})"
        raise Fail(1, f"lbproxy: found {asked}: say what serves it: lbproxy init --for {'|'.join(KINDS)}")
    text = configuration(project, here, Path(os.path.abspath(file)).parent if file != STDOUT else here)
    if file == STDOUT:
        print(text, end="")
        return 0
    _write(file, text)
    if not options.quiet:
        found = f" (found in {project.found_in})" if project.found_in else ""
        print(f"wrote {file}: {project.what}{found}")
        option = "" if os.path.abspath(file) == os.path.abspath(DEFAULT_CONFIG) else f" -c {file}"
        if project.note:
            print(f"look at the command: {project.note}")
        print(f"next: lbproxy check{option}, lbproxy serve{option}, and after a change lbproxy reload{option}")
    return 0


def configuration(project: Project, here: Path, beside: Path) -> str:
    """The text of the file. `here`: where the project is; `beside`: the directory of the file."""
    from lbproxy.config.toml_text import value_text

    found = f", found in {project.found_in}" if project.found_in else ""
    lines = [
        f"# lbproxy: {project.what}{found}. `lbproxy explain` lists all keys.",
        "",
        "[[listener]]",
        _commented('address = ":8080"', "where clients connect"),
        "",
        "[pool.web]",
        *([f"# {project.note}"] if project.note else []),
        f"command = {value_text(project.command)}",
        _commented('size    = "auto"', "one backend for each CPU, or a number"),
    ]
    if here != beside:
        lines.append(f"directory = {value_text(os.path.relpath(here, beside))}")
    if project.env:
        lines.append(f"env     = {value_text(project.env)}")
    lines += [*_env_file(here, beside), "", *_health(project.health_path)]
    return "\n".join(lines) + "\n"


def _env_file(here: Path, beside: Path) -> list[str]:
    from lbproxy.config.toml_text import value_text
    from lbproxy.supervise.generation import read_env_file

    path = here / ".env"
    if not path.is_file():
        return []
    line = f"env_file = {value_text(os.path.relpath(path, beside))}"
    try:
        read_env_file(str(path))
    except ValueError:
        return [f"# {line}    # not as lbproxy reads it: KEY=VALUE lines"]
    return [line]


def _health(path: str | None) -> list[str]:
    if path is not None:
        return ["[pool.web.health]", _commented(f'path = "{path}"', "a backend is ready when this answers 200-399")]
    return [
        "# [pool.web.health]",
        _commented('# path = "/healthz"', "better than a connect: ready when this answers 200-399"),
    ]


def _commented(line: str, comment: str) -> str:
    return f"{line.ljust(_COLUMN)} # {comment}"


def _write(file: str, text: str) -> None:
    try:
        with open(file, "x", encoding="utf-8") as opened:
            opened.write(text)
    except FileExistsError:
        raise Fail(1, f"lbproxy: {file} is there already, and init changes no file (-o names another one)") from None
    except OSError as exc:
        raise Fail(1, f"lbproxy: {file} cannot be written: {exc.strerror}") from None


def _unit(file: str) -> str:
    from lbproxy.cli.unit import unit
    from lbproxy.config.control_path import named_path
    from lbproxy.config.load import load
    from lbproxy.config.problems import ConfigInvalid

    try:
        shutdown_s = load(file).proxy.shutdown_timeout_s
    except ConfigInvalid:  # `serve` and `check` say so
        shutdown_s = _SHUTDOWN_S
    option = "" if file == DEFAULT_CONFIG else f" -o {file}"
    return unit(named_path(file), option=option, stop_s=shutdown_s + _STOP_MORE_S)
