"""The files of configs/ for one project: the demo's names, command and port replaced by the project's own.

Plain functions over the facts and the text. A text that is to be replaced and is not there is a mistake of ours: it
raises, and a test makes every file.
"""

import math
import os
import re
import shlex
from dataclasses import dataclass

from lbproxy.cli.config_files import config_file
from lbproxy.config.toml_text import key_text, value_text
from lbproxy.config.units import duration_text

DOCKERIGNORE = """\
.git
.venv
venv
node_modules
**/__pycache__
# Secrets do not belong in an image.
.env
*.pem
*.key
"""
_FROM_SOURCE = """\
COPY pyproject.toml README.md /src/
COPY lbproxy /src/lbproxy
COPY configs /src/configs
RUN pip install --no-cache-dir /src \\
"""
_FROM_WHEEL = """\
# The wheel of lbproxy, beside this file: {wheel}
COPY lbproxy-*.whl /src/
RUN pip install --no-cache-dir /src/lbproxy-*.whl \\
"""
_NODE = """\
FROM node:22-bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends python3 python3-venv && rm -rf /var/lib/apt/lists/* \\
    && python3 -m venv /opt/lbproxy
ENV PATH=/opt/lbproxy/bin:$PATH
"""
_STOP_MORE_S = 15.0  # of a container's grace, on top of shutdown_timeout
_POD_MORE_S = 30.0  # of a pod's, which has a preStop
_VENVS = (".venv", "venv")
_YAML_WORDS = ("y", "n", "yes", "no", "on", "off", "true", "false", "null")


@dataclass(frozen=True, slots=True)
class Deployment:
    """`name`: fit for Docker, Kubernetes and a path. `config`: the file, relative to the project. `wheel`: the command
    that makes lbproxy's. `needs`: as `needed` says it."""

    name: str
    config: str
    wheel: str
    pool: str
    command: str | list[str]
    needs: str = ""
    port: int = 8080
    health_path: str | None = None
    directory: str = "."
    env: tuple[tuple[str, str], ...] = ()
    env_file: str | None = None  # relative to the project
    shutdown_s: float = 30.0

    @property
    def is_node(self) -> bool:
        return self.needs.startswith("npm")

    @property
    def program(self) -> str:
        return (shlex.split(self.command) if isinstance(self.command, str) else self.command)[0]

    @property
    def image_install(self) -> str:
        """In an image: where the command looks for it."""
        if self.is_node or not self.needs:
            return self.needs
        venv = self.program.removesuffix(os.path.basename(self.program)).removesuffix("/bin/")
        if venv in _VENVS:
            return f"python3 -m venv {venv} && {venv}/bin/pip install --no-cache-dir {self.needs}"
        return f"pip install --no-cache-dir {self.needs}"

    @property
    def release_install(self) -> str:
        """In a release directory: a release brings what it needs."""
        if self.is_node or not self.needs:
            return self.needs
        return f"python3 -m venv .venv && .venv/bin/pip install -q {self.needs}"

    @property
    def release_command(self) -> str | list[str]:
        is_plain = isinstance(self.command, str) and os.path.basename(self.program) == self.program
        return f".venv/bin/{self.command}" if is_plain and self.needs and not self.is_node else self.command


def project_name(directory: str) -> str:
    """A name for containers, Kubernetes (RFC 1035) and paths, from the directory's."""
    name = re.sub(r"[^a-z0-9]+", "-", directory.lower()).strip("-")
    if not name[:1].isalpha() or name in _YAML_WORDS:
        name = f"app-{name}".rstrip("-")
    return name[:40].rstrip("-")


def needed(files: set[str]) -> str:
    """What pip or npm installs for a project with these files; empty: nothing says what it needs."""
    if "requirements.txt" in files:
        return "-r requirements.txt"
    if "package.json" in files:
        return "npm ci --omit=dev" if "package-lock.json" in files else "npm install --omit=dev"
    return "." if "pyproject.toml" in files else ""


def dockerfile(one: Deployment) -> str:
    text = config_file("Dockerfile")
    head = f"# lbproxy in a container, with {one.name} as the application:\n"
    head += f"#   docker build -t {one.name} . && docker run --rm -p {one.port}:{one.port} {one.name}\n"
    text = _begin(text, "# lbproxy in a container", "#   docker exec", head)
    if one.is_node:
        text = _replaced(text, "FROM python:3.12-slim\n", _NODE)
    text = _replaced(text, _FROM_SOURCE, _FROM_WHEEL.format(wheel=one.wheel))
    copied = "COPY . /app/\n" + (f"RUN {one.image_install}\n" if one.image_install else "")
    text = _replaced(text, "COPY configs/container.toml /app/lb.toml\nCOPY configs/demo_app.py /app/\n", copied)
    text = _replaced(text, "/app/lb.toml", f"/app/{one.config}")
    return _replaced(text, "EXPOSE 8080", f"EXPOSE {one.port}")


def compose(one: Deployment) -> str:
    text = _replaced(config_file("compose.yaml"), "# The demo by", f"# {one.name} by")
    text = _replaced(text, "docker compose -f configs/compose.yaml", "docker compose")
    text = _replaced(text, "lbproxy-demo", one.name)
    text = _replaced(text, "context: ..", "context: .")
    text = _replaced(text, "configs/Dockerfile", "Dockerfile")
    text = _replaced(text, "8080:8080", f"{one.port}:{one.port}")
    grace_s = math.ceil(one.shutdown_s + _STOP_MORE_S)
    text = _replaced(text, "stop_grace_period: 45s ", f"stop_grace_period: {grace_s}s ")
    if one.env_file is not None:
        volume = "      - state:/var/lib/lbproxy\n"
        text = _replaced(text, volume, f"{volume}      - ./{one.env_file}:/app/{one.env_file}:ro\n")
    return text


def kubernetes(one: Deployment) -> str:
    """The ConfigMap has one pool; what else the project's own file says is not in it."""
    text = _replaced(config_file("kubernetes.yaml"), "configs/kubernetes.yaml", "kubernetes.yaml")
    text = re.sub(r"\bshop\b", one.name, text)
    text = _replaced(text, "8080", str(one.port))
    text = _replaced(text, "pool.web", f"pool.{key_text(one.pool)}")
    text = _replaced(text, '"python3 demo_app.py --port {port}"', value_text(one.command))
    directory = f"/app/{one.directory}".removesuffix("/.")
    more = f"\n    env       = {value_text(dict(one.env))}" if one.env else ""
    text = _replaced(text, 'directory = "/app"', f"directory = {value_text(directory)}{more}")
    text = _replaced(text, '"30s" ', f'"{duration_text(one.shutdown_s)}" ')
    grace_s = math.ceil(one.shutdown_s + _POD_MORE_S)
    text = _replaced(text, "terminationGracePeriodSeconds: 60", f"terminationGracePeriodSeconds: {grace_s}")
    health = re.compile(r'\n    \[pool\.[^\n]*\.health\]\n    path = "/healthz"\n')
    if one.health_path is None:
        return health.sub("", text, count=1)
    return _replaced(text, 'path = "/healthz"', f"path = {value_text(one.health_path)}")


def workflow(one: Deployment) -> str:
    text = _replaced(config_file("github-actions.yml"), "configs/deploy.sh", "deploy.sh")
    text = _replaced(text, "/srv/shop/", f"/srv/{one.name}/")
    there = "python3 -m venv .venv && .venv/bin/pip install -q -r requirements.txt"
    if one.release_install:
        return _replaced(text, there, one.release_install)
    return _replaced(text, next(line for line in text.splitlines(keepends=True) if there in line), "")


def deploy_script(one: Deployment) -> str:
    text = _replaced(config_file("deploy.sh"), "/srv/shop", f"/srv/{one.name}")
    return _replaced(text, '".venv/bin/uvicorn app:app --port {port}"', value_text(one.release_command))


def _replaced(text: str, old: str, new: str) -> str:
    if old not in text:
        raise LookupError(f"configs/ does not say {old!r} any more")
    return text.replace(old, new)


def _begin(text: str, first: str, kept: str, head: str) -> str:
    """`head` instead of the lines from `first` up to the one that begins with `kept`."""
    begin, end = text.index(first), text.index(kept)
    return text[:begin] + head + text[end:]
