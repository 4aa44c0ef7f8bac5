"""Dockerfile, compose.yaml and kubernetes.yaml, as far as a machine without a container engine and a cluster can.

Schemas judge the YAML; a real lbproxy is PID 1 with the words, the user and the configuration of the Dockerfile. Not
tried here: the build of the image, a cluster, the PodMonitor (its schema is the operator's).
"""

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import kubernetes_validate
import psutil
import pytest
import yaml
from support.serve import Serving, serving
from support.users import needs_root, open_directory

from lbproxy.config.load import load
from lbproxy.settings import Settings

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
PROGRAMS = Path(sys.executable).parent  # lbproxy and python, as the image has them on PATH


def instructions() -> list[tuple[str, str]]:
    """Name and words of each instruction of the Dockerfile, continued lines joined."""
    text = re.sub(r"\\\n\s*", "", (CONFIGS / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(name, words) for name, _, words in (line.partition(" ") for line in lines)]


def words_of(name: str) -> list[str]:
    (found,) = [words for instruction, words in instructions() if instruction == name]
    return found.split(" ")


def test_the_dockerfile_copies_what_is_there_and_runs_words_not_a_shell() -> None:
    for name, words in instructions():
        if name == "COPY":
            *sources, _ = words.split()
            assert all((ROOT / source).exists() for source in sources), words
        if name in ("ENTRYPOINT", "CMD"):
            assert all(isinstance(word, str) for word in json.loads(words))
    assert all(part.isdigit() and int(part) > 0 for part in words_of("USER")[0].split(":")), "a number: not root"


@pytest.fixture
def as_pid_1() -> list[str]:
    """A prefix: PID 1 in a namespace of its own, as the user of the Dockerfile."""
    namespace = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no PID namespaces here")
    uid, gid = words_of("USER")[0].split(":")
    return [*namespace, "setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--no-new-privs"]


def image(directory: Path) -> str:
    """Lay out /app as the Dockerfile does; returns the configuration for `serving`."""
    for name, words in instructions():
        *sources, target = words.split()
        if name == "COPY" and target.startswith("/app/") and not target.endswith("lb.toml"):
            for source in sources:
                (directory / Path(source).name).write_bytes((ROOT / source).read_bytes())
    text = (CONFIGS / "container.toml").read_text().replace("/run/lbproxy", str(directory))
    orphan = """sh -c '(sleep 0.3 &); exec "$0" "$@"' python3"""
    text = text.replace("size    = 2", 'size = 1\nreload = { min_ready = "0s" }')
    return text.replace(":8080", "127.0.0.1:$port").replace(
        '"python3 demo_app.py --port {port}"', f'"""{orphan} demo_app.py --port {{port}}"""'
    )


@needs_root
@pytest.mark.peer("unshare", "setpriv")
def test_as_pid_1_it_reaps_zombies_and_term_drains(as_pid_1: list[str]) -> None:
    def arguments(lb: Serving) -> list[str]:
        assert json.loads(" ".join(words_of("ENTRYPOINT"))) == ["lbproxy"]
        return json.loads(" ".join(words_of("CMD")))

    with contextlib.ExitStack() as opened:
        app = opened.enter_context(open_directory())
        environment = {"LBPROXY_CONFIG": f"{app}/lb.toml", "PYTHONPYCACHEPREFIX": f"{app}/bytecode", "HOME": "/"}
        started = serving(image(app), app, prefix=as_pid_1, arguments=arguments, environment=environment)
        lb = opened.enter_context(started)
        control = psutil.Process(lb.pid).children()[0]
        assert lb.status()["pid"] == 1
        assert lb.get("/whoami").status == 200
        assert lb.cli("reload").returncode == 0

        def zombies() -> list[psutil.Process]:
            return [one for one in control.children(recursive=True) if one.status() == psutil.STATUS_ZOMBIE]

        lb.wait_until(lambda: not lb.pids_of("sleep 0.3") and not zombies())
        assert health(lb) == 0

        answers: list[int] = []
        client = threading.Thread(target=lambda: answers.append(lb.get("/slow?s=1").status))
        client.start()
        lb.wait_until(lambda: any(backend["in_flight"] for backend in lb.backends()))
        control.terminate()
        client.join()
        assert answers == [200], "what was in hand at TERM is answered"
        assert lb.process is not None
        assert lb.process.wait(20) == 0
        assert health(lb) == 1


def health(lb: Serving) -> int:
    """The exit code of the HEALTHCHECK."""
    (words,) = [words for name, words in instructions() if name == "HEALTHCHECK"]
    command = words.partition("CMD ")[2]
    environment = {**os.environ, "PATH": f"{PROGRAMS}:{os.environ['PATH']}", "LBPROXY_CONFIG": str(lb.config)}
    return subprocess.run(["sh", "-c", command], env=environment, timeout=60, check=False).returncode


def test_the_compose_file_fits_its_schema_and_the_image() -> None:
    path = CONFIGS / "compose.yaml"
    judge = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
    done = subprocess.run(judge, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout
    service = yaml.safe_load(path.read_text())["services"]["web"]
    assert (
        path.parent / service["build"]["context"] / service["build"]["dockerfile"]
    ).resolve() == CONFIGS / "Dockerfile"
    assert service["user"] == words_of("USER")[0]
    patience_s = int(service["stop_grace_period"].removesuffix("s"))
    assert patience_s > load(str(CONFIGS / "container.toml")).proxy.shutdown_timeout_s


# Kubernetes


def documents() -> dict[str, dict[str, Any]]:
    return {one["kind"]: one for one in yaml.safe_load_all((CONFIGS / "kubernetes.yaml").read_text())}


def test_every_document_fits_the_schema_of_kubernetes() -> None:
    found = documents()
    assert set(found) == {"ConfigMap", "Secret", "Deployment", "Service", "PodDisruptionBudget", "PodMonitor"}
    for kind, document in found.items():
        if kind != "PodMonitor":
            kubernetes_validate.validate(document, "1.30", strict=True)


def settings_of_the_config_map(directory: Path) -> Settings:
    text = documents()["ConfigMap"]["data"]["lb.toml"].replace('"/app"', f'"{directory}"')
    path = directory / "lb.toml"
    path.write_text(text)
    return load(str(path))


def test_the_parts_of_the_deployment_fit_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADMIN_TOKEN", "x" * 32)
    found = documents()
    settings = settings_of_the_config_map(tmp_path)
    template = found["Deployment"]["spec"]["template"]
    (container,) = template["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports["http"] == settings.listeners[0].address.port
    assert settings.admin is not None
    assert (settings.admin.address.host, settings.admin.address.port) == ("0.0.0.0", ports["admin"])
    assert set(settings.admin.open) == {"/livez", "/readyz"}

    strategy = found["Deployment"]["spec"]["strategy"]["rollingUpdate"]
    assert strategy == {"maxSurge": 1, "maxUnavailable": 0}
    pause_s = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert template["spec"]["terminationGracePeriodSeconds"] > pause_s + settings.proxy.shutdown_timeout_s
    start_s = container["startupProbe"]["periodSeconds"] * container["startupProbe"]["failureThreshold"]
    assert start_s >= max(pool.health.start_timeout_s for pool in settings.pools)
    paths = [container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")]
    assert paths == ["/readyz", "/readyz", "/livez"]
    assert str(template["spec"]["securityContext"]["runAsUser"]) == words_of("USER")[0].split(":")[0]

    for one in found["Deployment"]["spec"], found["PodDisruptionBudget"]["spec"], found["PodMonitor"]["spec"]:
        assert one["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert found["Service"]["spec"]["selector"].items() <= template["metadata"]["labels"].items()
    (endpoint,) = found["PodMonitor"]["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] in ports
    token = container["env"][1]["valueFrom"]["secretKeyRef"]
    assert token == endpoint["authorization"]["credentials"]
    assert token["key"] in found["Secret"]["stringData"]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in template["spec"]["volumes"]}
