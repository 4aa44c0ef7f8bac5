"""`lbproxy init --compose`, `--kubernetes`, `--github`: reads the project's configuration and writes the files.

All files or none: an existing one ends the command before anything is written.
"""

import json
import os
import shlex
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from lbproxy import __version__
from lbproxy.address import Address
from lbproxy.cli import deployment
from lbproxy.cli.deployment import Deployment
from lbproxy.cli.options import Fail, Options

_FILES: dict[str, dict[str, Callable[[Deployment], str]]] = {
    "compose": {
        "Dockerfile": deployment.dockerfile,
        "compose.yaml": deployment.compose,
        ".dockerignore": lambda _: deployment.DOCKERIGNORE,
    },
    "kubernetes": {"kubernetes.yaml": deployment.kubernetes},
    "github": {".github/workflows/deploy.yml": deployment.workflow, "deploy.sh": deployment.deploy_script},
}
_MAY_EXIST = ".dockerignore"


def refuse_existing(here: Path, wanted: list[str]) -> None:
    """`wanted`: keys of _FILES. Raises Fail."""
    names = [name for key in wanted for name in _FILES[key]]
    there = [name for name in names if os.path.lexists(here / name) and name != _MAY_EXIST]
    if there:
        are = "is" if len(there) == 1 else "are"
        raise Fail(1, f"lbproxy: {', '.join(there)} {are} there already, and init changes no file: nothing was written")


def write_files(options: Options, config: str, here: Path, wanted: list[str]) -> None:
    """Raises Fail."""
    one, remarks = facts(config, here)
    texts = {name: make(one) for key in wanted for name, make in _FILES[key].items()}
    for name, text in texts.items():
        if not os.path.lexists(here / name):
            _write(here / name, name, text)
            if not options.quiet:
                print(f"wrote {name}")
    if not options.quiet:
        for remark in remarks:
            print(f"look: {remark}")
        for step in _next_steps(one, wanted):
            print(f"next: {step}")


def facts(config: str, here: Path) -> tuple[Deployment, list[str]]:
    """What the files need to know, and what the user has to see to. Raises Fail."""
    from lbproxy.config.load import load
    from lbproxy.config.problems import ConfigInvalid
    from lbproxy.config.units import duration

    relative = os.path.relpath(config, here)
    if relative.startswith(".."):
        raise Fail(1, f"lbproxy: {config} is not in this directory, which the image is made of")
    try:
        load(config)
        document = tomllib.loads(Path(config).read_text(encoding="utf-8"))
    except ConfigInvalid as exc:
        raise Fail(78, exc.text) from None
    pools = {name: pool for name, pool in document["pool"].items() if "command" in pool}
    if not pools:
        raise Fail(1, f"lbproxy: {config} has no pool with a command: there is nothing to put into a container")
    name, pool = next(iter(pools.items()))
    files = set(os.listdir(here))
    address = Address.parse(document["listener"][0]["address"])
    base = os.path.dirname(relative)
    env_file = pool.get("env_file")
    one = Deployment(
        name=deployment.project_name(here.name),
        config=relative,
        wheel=wheel_command(),
        pool=name,
        command=_in_the_image(pool["command"]),
        needs=deployment.needed(files),
        port=address.port or 8080,
        health_path=pool.get("health", {}).get("path"),
        directory=os.path.normpath(os.path.join(base, pool.get("directory", "."))),
        env=tuple(pool.get("env", {}).items()),
        env_file=None if env_file is None else os.path.normpath(os.path.join(base, env_file)),
        shutdown_s=duration(document.get("proxy", {}).get("shutdown_timeout", "30s")),
    )
    return one, _remarks(one, document, address)


def _in_the_image(command: str | list[str]) -> str | list[str]:
    """A server that came with this lbproxy is on the PATH of the image."""
    beside = os.path.dirname(sys.executable) + "/"
    return command.removeprefix(beside) if isinstance(command, str) else command


def _remarks(one: Deployment, document: dict[str, Any], address: Address) -> list[str]:
    command = document["pool"][one.pool]["command"]
    program = (shlex.split(command) if isinstance(command, str) else command)[0]
    found = []
    if address.path is not None or address.passed is not None or address.is_local:
        wanted = f'":{one.port}" would do'
        found.append(f"{one.config} listens on {address}, which nobody outside a container reaches: {wanted}")
    if os.path.isabs(program):
        found.append(f"the command of {one.config} begins with {program}, which has to be in the image")
    if not one.needs:
        found.append("no requirements.txt, pyproject.toml or package.json says what has to be installed")
    if len(document["pool"]) > 1 or "route" in document:
        found.append(f"kubernetes.yaml has the pool {one.pool} only: {one.config} says more")
    if one.env_file is not None:
        found.append(f"{one.env_file} stays out of the image: compose.yaml mounts it, Kubernetes needs a Secret")
    return found


def _next_steps(one: Deployment, wanted: list[str]) -> list[str]:
    steps = {
        "compose": f"{one.wheel} && docker compose up --build",
        "kubernetes": "put your registry and a token into kubernetes.yaml, then kubectl apply -f kubernetes.yaml",
        "github": f"on the machine: deploy.sh on the PATH of the user deploy, releases in /srv/{one.name}/releases",
    }
    return [steps[key] for key in wanted]


def wheel_command() -> str:
    """What makes a wheel of this lbproxy: from where it was installed."""
    try:
        origin = json.loads(distribution("lbproxy").read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        origin = {}
    url = str(origin.get("url", ""))
    if vcs := origin.get("vcs_info"):
        url = f"{vcs.get('vcs', 'git')}+{url}@{vcs.get('commit_id', '')}"
    source = shlex.quote(url.removeprefix("file://")) if url else f"lbproxy=={__version__}"
    return f"pip wheel --no-deps -w . {source}"


def _write(path: Path, name: str, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "x", encoding="utf-8") as opened:
            opened.write(text)
        if text.startswith("#!"):
            path.chmod(0o755)
    except OSError as exc:
        raise Fail(1, f"lbproxy: {name} cannot be written: {exc.strerror}") from None
