"""The adapted files keep to their schemas, and nothing of the demo is left in them."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from lbproxy.cli import deployment
from lbproxy.cli.deployment import Deployment, needed, project_name
from lbproxy.config.load import load

PYTHON = Deployment(
    name="my-shop",
    config="etc/lb.toml",
    wheel="pip wheel --no-deps -w . /src/lbproxy",
    pool="front",
    command="uvicorn main:app --port {port}",
    needs="-r requirements.txt",
    port=9000,
    health_path="/up",
    directory="src",
    env=(("MODE", 'a "b" \\ c'),),
    env_file=".env",
    shutdown_s=90.0,
)
SHELL = ["sh", "-c", 'exec ./serve "$PORT"']
BARE = Deployment("app-1", "lb.toml", "pip wheel -w . lbproxy", "web", SHELL)
NODE = replace(BARE, command="node server.js", needs="npm ci --omit=dev")
VENV = replace(PYTHON, command=".venv/bin/uvicorn main:app --port {port}")
ALL = [PYTHON, BARE, NODE, VENV]
MAKERS = [
    deployment.dockerfile,
    deployment.compose,
    deployment.kubernetes,
    deployment.workflow,
    deployment.deploy_script,
]


def judged(path: Path, schema: str) -> str:
    judge = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", str(path)]
    done = subprocess.run(judge, capture_output=True, text=True, timeout=60, check=False)
    return "" if done.returncode == 0 else done.stdout


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("one", ALL, ids=["python", "bare", "node", "venv"])
def test_nothing_of_the_demo_is_left(make: Callable[[Deployment], str], one: Deployment) -> None:
    text = make(replace(one, name="n"))
    for word in ("shop", "demo", "configs/"):
        assert word not in text


@pytest.mark.parametrize("one", [PYTHON, BARE], ids=["python", "bare"])
def test_kubernetes_gets_the_names_the_port_and_the_command(
    one: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = {document["kind"]: document for document in yaml.safe_load_all(deployment.kubernetes(one))}
    for kind, document in documents.items():
        assert document["metadata"]["name"] in (one.name, f"{one.name}-admin")
        if kind != "PodMonitor":
            kubernetes_validate.validate(document, "1.30", strict=True)
    monkeypatch.setenv("ADMIN_TOKEN", "x" * 32)
    (tmp_path / "src").mkdir()
    path = tmp_path / "lb.toml"
    path.write_text(documents["ConfigMap"]["data"]["lb.toml"].replace('"/app', f'"{tmp_path}'))
    settings = load(path)
    [pool] = settings.pools
    words = tuple(one.command.split() if isinstance(one.command, str) else one.command)
    assert (pool.name, pool.command, pool.env, pool.health.path) == (one.pool, words, one.env, one.health_path)
    assert settings.listeners[0].address.port == one.port
    spec = documents["Deployment"]["spec"]["template"]["spec"]
    assert spec["containers"][0]["image"] == f"registry.example.com/{one.name}:1.0.0"
    assert {"name": "http", "containerPort": one.port} in spec["containers"][0]["ports"]
    assert spec["terminationGracePeriodSeconds"] == settings.proxy.shutdown_timeout_s + 30


def test_compose_fits_its_schema_and_the_dockerfile(tmp_path: Path) -> None:
    path = tmp_path / "compose.yaml"
    path.write_text(deployment.compose(PYTHON))
    assert judged(path, "compose-spec") == ""
    document = yaml.safe_load(path.read_text())
    service = document["services"]["web"]
    assert document["name"] == "my-shop"
    assert service["build"] == {"context": ".", "dockerfile": "Dockerfile"}
    assert (service["ports"], service["stop_grace_period"]) == (["9000:9000"], "105s")
    assert "./.env:/app/.env:ro" in service["volumes"]


def test_the_dockerfile_takes_lbproxy_from_a_wheel_and_the_project_from_its_directory() -> None:
    text = deployment.dockerfile(PYTHON)
    for line in (
        "# The wheel of lbproxy, beside this file: pip wheel --no-deps -w . /src/lbproxy",
        "COPY . /app/",
        "RUN pip install --no-cache-dir -r requirements.txt",
        "ENV LBPROXY_CONFIG=/app/etc/lb.toml",
        "EXPOSE 9000",
    ):
        assert line in text.splitlines()
    assert "RUN python3 -m venv .venv && .venv/bin/pip install " in deployment.dockerfile(VENV)
    node = deployment.dockerfile(NODE)
    assert "\nFROM node:" in node
    assert "\nRUN npm ci --omit=dev\n" in node
    assert ".env\n" in deployment.DOCKERIGNORE


def test_the_workflow_fits_its_schema_and_installs_in_the_release(tmp_path: Path) -> None:
    path = tmp_path / "deploy.yml"
    for one, installs in ((PYTHON, ".venv/bin/pip install"), (NODE, "npm ci"), (BARE, None)):
        path.write_text(deployment.workflow(one))
        [job] = yaml.safe_load(path.read_text())["jobs"].values()
        assert job["env"]["RELEASES"] == f"/srv/{one.name}/releases"
        [copying] = [step["run"] for step in job["steps"] if step.get("name") == "Copy the release"]
        assert len(copying.splitlines()) == (1 if installs is None else 2)
        assert installs is None or installs in copying
    assert judged(path, "github-workflows") == ""


def test_the_script_for_the_machine_runs(tmp_path: Path) -> None:
    text = deployment.deploy_script(PYTHON)
    assert '"DEPLOY_ROOT:-/srv/my-shop}"' in text.replace("${", '"').replace("}", '}"')
    assert '#   command   = ".venv/bin/uvicorn main:app --port {port}" ' in text
    script = tmp_path / "deploy.sh"
    script.write_text(text)
    done = subprocess.run(["sh", str(script)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "/srv/my-shop/releases" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("directory", "name"),
    [("shop", "shop"), ("My Shop_2!", "my-shop-2"), ("42", "app-42"), ("on", "app-on"), ("日本", "app"), ("", "app")],
)
def test_a_name_fits_everywhere(directory: str, name: str) -> None:
    assert project_name(directory) == name
    assert len(project_name("x-" * 99)) <= 40


def test_the_files_say_what_has_to_be_installed() -> None:
    assert needed({"requirements.txt", "package.json"}) == "-r requirements.txt"
    assert needed({"package.json"}) == "npm install --omit=dev"
    assert needed({"package.json", "package-lock.json"}) == "npm ci --omit=dev"
    assert needed({"pyproject.toml"}) == "."
    assert needed({"app.py"}) == ""
