"""Autobahn's fuzzing client against a WebSocket server, directly and through lbproxy: no case may come out worse.

The suite exists for Python 2.7 only. It is installed into a virtual environment of its own, below ~/.cache.
The server is Node's `ws` (`npm install --no-save ws@8` in the repository's directory).

    python loadtest/autobahn.py                    about 250 cases; without limits, performance and compression
    python loadtest/autobahn.py --cases '*'        all 517
"""

import argparse
import glob
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.apps import ROOT
from support.ports import free_port
from support.serve import serving

import rig

CACHE = Path.home() / ".cache" / "lbproxy-autobahn"
SERVER = f"node {ROOT / 'tests' / 'support' / 'apps' / 'ws_server.js'}"
CONFIG = f"""
[proxy]
workers = 1
[[listener]]
address = "127.0.0.1:$port"
[pool.web]
command = "{SERVER}"
bind = "fd"
[pool.web.health]
path = "/"
"""
# From good to bad. A case that the server does not take part in is no worse for going through a proxy.
ORDER = ("OK", "INFORMATIONAL", "NON-STRICT", "UNIMPLEMENTED", "WRONG CODE", "UNCLEAN", "FAILED BY CLIENT", "FAILED")
OPTIONAL = ("9.*", "12.*", "13.*")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=["*"], help="such as '1.*' '5.18'; '*' alone: without OPTIONAL")
    parser.add_argument(
        "--all", action="store_true", help="with 9.* (limits, performance) and 12.*, 13.* (compression)"
    )
    parser.add_argument("--python2", default=_python2(), help="an interpreter that has virtualenv, or pip to get it")
    options = parser.parse_args()
    if options.python2 is None:
        sys.exit("no Python 2.7 found: --python2 PATH")
    if shutil.which("node") is None or not (ROOT / "node_modules" / "ws").is_dir():
        sys.exit(f"needs Node and its package ws: npm install --no-save ws@8 in {ROOT}")
    wstest = _installed(options.python2)
    with (
        tempfile.TemporaryDirectory(prefix="lbproxy-autobahn-") as folder,
        _direct() as port,
        serving(CONFIG, Path(folder) / "lb") as lb,
    ):
        servers = {"direct": port, "lbproxy": lb.port}
        exclude = [] if options.all else list(OPTIONAL)
        results = _run(wstest, Path(folder), servers, options.cases, exclude)
        connections = lb.status()["workers"][0]["connections"]
    report = rig.Report("autobahn")
    for name, cases in results.items():
        report.line(name, _counts(cases))
    report.promise(0 < len(results["direct"]) == len(results["lbproxy"]), "not every case was run")
    report.promise(connections == 0, f"{connections} connections are left")
    for what in _worse(results["direct"], results["lbproxy"]):
        report.promise(False, what)
    report.end()


def _python2() -> str | None:
    found = glob.glob(os.path.expanduser("~/.pyenv/versions/2.7*/bin/python"))
    return found[-1] if found else shutil.which("python2.7")


def _installed(python2: str) -> Path:
    wstest = CACHE / "bin" / "wstest"
    if not wstest.exists():
        print(f"installing autobahntestsuite into {CACHE} ...")
        quiet = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        if subprocess.run([python2, "-m", "virtualenv", "--version"], capture_output=True, check=False).returncode:
            subprocess.run([python2, "-m", "pip", "install", "virtualenv"], **quiet)
        subprocess.run([python2, "-m", "virtualenv", str(CACHE)], **quiet)
        subprocess.run([str(CACHE / "bin" / "pip"), "install", "autobahntestsuite"], **quiet)
    return wstest


@contextmanager
def _direct() -> Iterator[int]:
    port = free_port()
    environment = {**os.environ, "PORT": str(port), "LBPROXY_GENERATION": "-"}
    with subprocess.Popen(SERVER.split(), env=environment, stdout=subprocess.DEVNULL) as server:
        try:
            yield port
        finally:
            server.kill()


def _run(
    wstest: Path, folder: Path, servers: dict[str, int], cases: list[str], exclude: list[str]
) -> dict[str, dict[str, dict]]:
    reports = folder / "reports"
    spec = {
        "outdir": str(reports),
        "servers": [{"agent": name, "url": f"ws://127.0.0.1:{port}"} for name, port in servers.items()],
        "cases": cases,
        "exclude-cases": exclude,
        "exclude-agent-cases": {},
    }
    (folder / "spec.json").write_text(json.dumps(spec))
    command = [str(wstest), "-m", "fuzzingclient", "-s", str(folder / "spec.json")]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as suite:
        assert suite.stdout is not None
        for line in suite.stdout:
            if re.search(r"error|Traceback", line):
                print(line, end="")
    return json.loads((reports / "index.json").read_text())


def _worse(direct: dict[str, dict], proxied: dict[str, dict]) -> Iterator[str]:
    for case, before in direct.items():
        after = proxied.get(case, {"behavior": "FAILED", "behaviorClose": "FAILED"})
        for what in ("behavior", "behaviorClose"):
            if ORDER.index(after[what]) > ORDER.index(before[what]):
                yield f"case {case}, {what}: {before[what]} directly, {after[what]} through lbproxy"


def _counts(cases: dict[str, dict]) -> str:
    counts: dict[str, int] = {}
    for case in cases.values():
        counts[case["behavior"]] = counts.get(case["behavior"], 0) + 1
    return f"{len(cases)} cases, " + ", ".join(f"{number} {what}" for what, number in sorted(counts.items()))


if __name__ == "__main__":
    main()
