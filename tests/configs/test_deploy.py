"""deploy.sh, the post-receive hook and the CI files: a push that serves, and one that is rolled back.

The hook and deploy.sh run with a real git and a real lbproxy. The schemas of GitHub and GitLab judge the CI files, and
their reload steps run in a shell with a stand-in for ssh. Not tried here: GitHub, GitLab, ssh and rsync themselves.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from support.serve import LBPROXY, Serving, serving
from support.web import web

CONFIGS = Path(__file__).parents[2] / "configs"

APP = """
import os
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"VERSION")

HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


def program(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


# A machine with lbproxy


class Machine:
    def __init__(self, root: Path, lb: Serving) -> None:
        self.root = root
        self.lb = lb
        words = " ".join(f"'{word}'" for word in [*LBPROXY, "-c", str(lb.config), "--control", lb.control])
        program(root / "bin" / "lbproxy", f'#!/bin/sh\nexec {words} "$@"\n')
        shutil.copy(CONFIGS / "deploy.sh", root / "bin")
        self.environment = {
            **os.environ,
            "PATH": f"{root}/bin:{os.environ['PATH']}",
            "DEPLOY_ROOT": str(root),
            "GIT_CONFIG_GLOBAL": "/dev/null",
            **{f"GIT_{who}_{what}": "a@b.invalid" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
        }

    def run(self, *words: str, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            words, cwd=cwd, env=self.environment, capture_output=True, text=True, timeout=60, check=False
        )

    def git(self, *words: str) -> str:
        done = self.run("git", *words, cwd=self.root / "work")
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def push(self, app: str) -> tuple[str, str]:
        """Commit and push an application; returns the commit and what the hook said."""
        (self.root / "work" / "app.py").write_text(app)
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "a version")
        said = self.git("push", "-q", str(self.root / "shop.git"), "HEAD:main")
        return self.git("rev-parse", "HEAD").strip(), said

    def current(self) -> str:
        return os.readlink(self.root / "current")


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    first = tmp_path / "releases" / "first"
    first.mkdir(parents=True)
    (first / "app.py").write_text(APP.replace("VERSION", "v1"))
    (tmp_path / "current").symlink_to("releases/first")
    config = web('directory = "current"', command="$python app.py", health='path = "/"', size=1)
    with serving(config, tmp_path) as lb:
        yield Machine(tmp_path, lb)


@pytest.mark.peer("git")
def test_a_push_is_served_and_a_broken_one_is_rolled_back(machine: Machine) -> None:
    root = machine.root
    (root / "work").mkdir()
    machine.git("init", "-q", "--bare", str(root / "shop.git"))
    machine.git("init", "-q")
    shutil.copy(CONFIGS / "post-receive", root / "shop.git" / "hooks")

    program(root / "work" / "build", "#!/bin/sh\ntouch built\n")
    commit, said = machine.push(APP.replace("VERSION", "v2"))
    assert "reloaded web to generation 2" in said
    assert f"deploy: {commit} serves" in said
    assert machine.lb.get("/").body == b"v2"
    assert machine.current() == f"releases/{commit}"
    assert (root / "current" / "built").exists()

    _, said = machine.push("raise SystemExit('no database')")
    assert "no database" in said
    assert "rolled back, the old release serves as before" in said
    assert machine.lb.get("/").body == b"v2"
    assert machine.current() == f"releases/{commit}", "a restart would serve what serves now"

    (root / "work" / "build").write_text("#!/bin/sh\necho cannot build; exit 1\n")
    _, said = machine.push(APP.replace("VERSION", "v3"))
    assert "cannot build" in said
    assert machine.current() == f"releases/{commit}"
    machine.git("push", "-q", str(root / "shop.git"), "HEAD:other")
    assert machine.lb.get("/").body == b"v2", "only one branch deploys"


# deploy.sh with each exit code


def deploy(root: Path, codes: str, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run deploy.sh with an lbproxy that ends with one code after the other."""
    for name in ("old", "new"):
        (root / "releases" / name).mkdir(parents=True, exist_ok=True)
    (root / "codes").write_text(codes)
    (root / "current").symlink_to("releases/old")
    program(
        root / "bin" / "lbproxy",
        f'#!/bin/sh\ncode=$(head -n 1 {root}/codes)\nsed -i 1d {root}/codes\necho "$@"\nexit $code\n',
    )
    environment = {**os.environ, "PATH": f"{root}/bin:{os.environ['PATH']}", "DEPLOY_ROOT": str(root)}
    return subprocess.run(
        [str(CONFIGS / "deploy.sh"), *words],
        env={**environment, "DEPLOY_RETRY_S": "0"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("codes", "points_to", "says"),
    [
        ("0", "new", "deploy: new serves"),
        ("1", "old", "lbproxy reload ended with 1"),
        ("3", "old", "lbproxy is not running"),
        ("5", "old", "rolled back, the old release serves as before"),
        ("6", "old", "with less capacity"),
        ("7", "new", "still being rolled out"),
        ("8\n8\n0", "new", "deploy: new serves"),
        ("9", "new", "half-way"),
        ("78", "old", "nothing has happened"),
        ("130", "new", "the reload goes on"),
    ],
)
def test_every_exit_code_of_a_reload_has_its_end(tmp_path: Path, codes: str, points_to: str, says: str) -> None:
    done = deploy(tmp_path, codes, "new")
    assert done.returncode == int(codes.split()[-1])
    assert says in done.stdout + done.stderr
    assert os.readlink(tmp_path / "current") == f"releases/{points_to}"
    assert done.stdout.startswith("reload --timeout 10m\n")
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".current")]


@pytest.mark.parametrize("words", [(), ("",), ("../old",), (".",), ("gone",)])
def test_what_is_no_release_changes_nothing(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = deploy(tmp_path, "0", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert "releases" in done.stderr
    assert os.readlink(tmp_path / "current") == "releases/old"


# CI


@pytest.mark.parametrize(
    ("name", "schema"), [("github-actions.yml", "github-workflows"), ("gitlab-ci.yml", "gitlab-ci")]
)
def test_the_files_for_ci_fit_their_schemas(name: str, schema: str) -> None:
    judge = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", str(CONFIGS / name)]
    done = subprocess.run(judge, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


def in_shell(script: str, directory: Path, code: int) -> "subprocess.CompletedProcess[str]":
    """As a runner of CI does it; ssh runs the command here, and the deploy on the machine ends with `code`."""
    program(directory / "ssh", '#!/bin/sh\n[ "$1" = deploy@lb.invalid ] && shift && exec sh -c "$*"\n')
    program(directory / "deploy.sh", f'#!/bin/sh\n[ "$1" = c0ffee ] && exit {code}\n')
    environment = {"PATH": f"{directory}:{os.environ['PATH']}", "TARGET": "deploy@lb.invalid", "RELEASE": "c0ffee"}
    shell = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
    return subprocess.run(shell, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("code", "ends_with", "says"),
    [
        (0, 0, "::notice title=Deployed::c0ffee serves"),
        (5, 5, "::error title=Rolled back::"),
        (6, 6, "::error title=Capacity reduced::"),
        (7, 0, "::warning title=Still going on::"),
        (8, 8, "::error title=Busy::"),
        (9, 9, "::error title=Half-way::"),
        (78, 78, "::error title=Configuration invalid::"),
        (255, 255, "::error title=Failed::exit code 255"),
    ],
)
def test_github_shows_how_a_deploy_ended(tmp_path: Path, code: int, ends_with: int, says: str) -> None:
    steps = yaml.safe_load((CONFIGS / "github-actions.yml").read_text())["jobs"]["deploy"]["steps"]
    (script,) = [step["run"] for step in steps if step.get("name") == "Reload"]
    done = in_shell(script, tmp_path, code)
    assert done.returncode == ends_with
    assert done.stdout.startswith(says)


@pytest.mark.parametrize("code", [0, 5, 7, 8])
def test_gitlab_gets_the_exit_code_of_the_reload(tmp_path: Path, code: int) -> None:
    job = yaml.safe_load((CONFIGS / "gitlab-ci.yml").read_text())["deploy"]
    assert in_shell(job["script"][-1], tmp_path, code).returncode == code
    assert job["allow_failure"]["exit_codes"] == [7]
    assert job["retry"]["exit_codes"] == [8]
