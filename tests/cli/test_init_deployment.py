"""`init --compose`, `--kubernetes` and `--github` in a project: from its configuration, and never over a file."""

import os
from pathlib import Path

import pytest
import yaml

from lbproxy.cli.init_deployment import wheel_command
from lbproxy.cli.main import run

ALL = ["init", "--compose", "--kubernetes", "--github"]
WRITTEN = [
    "Dockerfile",
    "compose.yaml",
    ".dockerignore",
    "kubernetes.yaml",
    ".github/workflows/deploy.yml",
    "deploy.sh",
]
CONFIG = """
[proxy]
shutdown_timeout = "10s"
[[listener]]
address = "127.0.0.1:9000"
[[route]]
path = "/old"
pool = "old"
[pool.old]
targets = ["127.0.0.1:1"]
[pool.main]
command = "/opt/serve --port {port}"
env_file = ".env"
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    project = tmp_path / "Shop"
    project.mkdir()
    (project / "requirements.txt").write_text("fastapi[standard]")
    (project / "main.py").write_text("from fastapi import FastAPI\napp = FastAPI()\n")
    monkeypatch.chdir(project)
    return project


def test_a_new_project_gets_its_configuration_too(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(ALL, {}) == 0
    said = capsys.readouterr().out
    assert [line for line in said.splitlines() if line.startswith("wrote ")] == [
        "wrote ./lb.toml: FastAPI with uvicorn (found in main.py)",
        *(f"wrote {name}" for name in WRITTEN),
    ]
    assert f"next: {wheel_command()} && docker compose up --build" in said
    assert all((shop / name).stat().st_size for name in WRITTEN)
    assert os.access(shop / "deploy.sh", os.X_OK)
    assert yaml.safe_load((shop / "compose.yaml").read_text())["name"] == "shop"
    assert '"uvicorn main:app --host {host} --port {port}"' in (shop / "kubernetes.yaml").read_text()
    assert run(["check", "-q"], {}) == 0


def test_what_the_configuration_says_is_what_the_files_say(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (shop / "lb.toml").write_text(CONFIG)
    (shop / ".env").write_text("A=1\n")
    (shop / ".dockerignore").write_text("mine\n")
    assert run(["init", "--compose", "--kubernetes"], {}) == 0
    said = capsys.readouterr().out
    for remark in (
        'lb.toml listens on 127.0.0.1:9000, which nobody outside a container reaches: ":9000" would do',
        "the command of lb.toml begins with /opt/serve, which has to be in the image",
        "kubernetes.yaml has the pool main only: lb.toml says more",
        ".env stays out of the image",
    ):
        assert f"look: {remark}" in said
    assert "wrote .dockerignore" not in said
    assert (shop / ".dockerignore").read_text() == "mine\n"
    service = yaml.safe_load((shop / "compose.yaml").read_text())["services"]["web"]
    assert (service["ports"], service["stop_grace_period"]) == (["9000:9000"], "25s")


def test_an_existing_file_ends_it_before_anything_is_written(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (shop / "Dockerfile").write_text("mine")
    (shop / "deploy.sh").symlink_to("nowhere")
    assert run(ALL, {}) == 1
    assert capsys.readouterr().err == (
        "lbproxy: Dockerfile, deploy.sh are there already, and init changes no file: nothing was written\n"
    )
    assert sorted(os.listdir(shop)) == ["Dockerfile", "deploy.sh", "main.py", "requirements.txt"]
    assert (shop / "Dockerfile").read_text() == "mine"


def test_what_cannot_be_done_is_one_line(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(os.listdir(shop))
    assert run(["init", "--compose", "--systemd"], {}) == 2
    assert run(["init", "--compose", "-o", "-"], {}) == 2
    (shop.parent / "lb.toml").write_text(CONFIG)
    assert run(["init", "--compose", "-c", "../lb.toml"], {}) == 1
    assert "is not in this directory" in capsys.readouterr().err
    assert sorted(os.listdir(shop)) == before
    (shop / "lb.toml").write_text("[proxy")
    assert run(["init", "--compose", "-q"], {}) == 78
    (shop / "lb.toml").write_text('[[listener]]\naddress = ":1"\n[pool.web]\ntargets = ["127.0.0.1:1"]\n')
    assert run(["init", "--compose"], {}) == 1
    assert "has no pool with a command" in capsys.readouterr().err
    (shop / "main.py").unlink()
    (shop / "requirements.txt").unlink()
    (shop / "lb.toml").unlink()
    assert run(["init", "--compose"], {}) == 1
    assert "lbproxy init --for" in capsys.readouterr().err
    assert os.listdir(shop) == []


def test_a_place_that_cannot_be_written_is_named(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (shop / ".github").write_text("a file")
    assert run(["init", "--github", "-q"], {}) == 1
    assert ".github/workflows/deploy.yml cannot be written: " in capsys.readouterr().err


def test_the_wheel_is_made_from_where_this_lbproxy_came() -> None:
    assert wheel_command().startswith("pip wheel --no-deps -w . ")
