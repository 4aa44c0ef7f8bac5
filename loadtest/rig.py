"""The shared part of the load tests: lbproxy in front of the fast origin, reloads in the middle, a verdict at the end.

Everything runs on the loopback, in processes of its own, and has an end.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import trio

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.serve import Serving, serving

CONFIG = """
[proxy]
workers = {workers}

[[listener]]
address = "127.0.0.1:$port"

[pool.web]
command = "$origin --port {{port}}"
size = {backends}

[pool.web.health]
path = "/healthz"

[pool.web.reload]
max_surge = {surge}

[log]
access = "off"
"""


@dataclass(frozen=True, slots=True)
class Reloaded:
    """One `lbproxy reload`, as reported by its last line of JSON."""

    exit_code: int
    took_s: float
    verdict: dict[str, Any]
    text: str

    @property
    def ok(self) -> bool:
        return self.exit_code == 0 and self.verdict.get("result") == "ok" and self.verdict.get("failed") == 0


def arguments(what: str, **defaults: Any) -> argparse.Namespace:
    """Options: one for each default of the load test, and `--backends`, `--workers`, `--surge`, `--path`."""
    parser = argparse.ArgumentParser(description=what, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    defaults = {"backends": 4, "workers": "auto", "surge": 1, "path": "/"} | defaults
    for name, value in defaults.items():
        kind = str if isinstance(value, str) else type(value)
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=value, help=" ")
    return parser.parse_args()


@contextmanager
def proxied(options: argparse.Namespace, config: str = CONFIG) -> Iterator[Serving]:
    """lbproxy in front of origins. `config` has {workers}, {backends} and {surge}."""
    workers, surge = (value if str(value).isdigit() else f'"{value}"' for value in (options.workers, options.surge))
    text = config.format(workers=workers, backends=options.backends, surge=surge)
    folder = Path(tempfile.mkdtemp(prefix="lbproxy-load-"))
    try:
        with serving(text, folder) as lb:
            yield lb
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def url(lb: Serving, path: str) -> str:
    return f"http://127.0.0.1:{lb.port}{path}"


def need(program: str) -> None:
    if shutil.which(program) is None:
        sys.exit(f"{program} is not on PATH (Debian: apache2-utils, wrk)")


async def output_of(command: list[str]) -> str:
    """Run a load generator to its end; returns its standard output and error together."""
    done = await trio.run_process(command, capture_stdout=True, stderr=subprocess.STDOUT, check=False)
    return done.stdout.decode(errors="replace")


async def reload(lb: Serving, *, limit_s: float = 120.0) -> Reloaded:
    begun = trio.current_time()
    with trio.fail_after(limit_s):
        done = await trio.run_process(
            lb.command("reload", "--json"), capture_stdout=True, capture_stderr=True, check=False
        )
    took_s = trio.current_time() - begun
    text = done.stdout.decode(errors="replace") + done.stderr.decode(errors="replace")
    verdict: dict[str, Any] = {}
    for line in done.stdout.splitlines():
        told = json.loads(line)
        if told.get("event") == "reload.done":
            verdict = told
    return Reloaded(done.returncode, took_s, verdict, text)


async def under_load(lb: Serving, command: list[str], reloads: int) -> tuple[list[str], list[Reloaded]]:
    """Run a load generator, again and again until `reloads` reloads are over. Returns its outputs and the reloads.

    A second of load goes before each reload.
    """
    outputs: list[str] = []
    done: list[Reloaded] = []

    async def load() -> None:
        while not outputs or len(done) < reloads:
            outputs.append(await output_of(command))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(load)
        for _ in range(reloads):
            await trio.sleep(1.0)
            done.append(await reload(lb))
    return outputs, done


def environment() -> str:
    """The line that makes figures comparable."""
    return f"{os.cpu_count()} CPUs, Python {sys.version.split()[0]}, Linux {os.uname().release}"


class Report:
    """Lines for the reader. A broken promise ends the command with 1."""

    def __init__(self, title: str) -> None:
        self._broken: list[str] = []
        print(f"{title}  ({environment()})")

    def line(self, name: str, value: object) -> None:
        print(f"  {name:<28} {value}", flush=True)

    def promise(self, kept: bool, what: str) -> None:
        if not kept:
            self._broken.append(what)

    def reloads(self, done: list[Reloaded]) -> None:
        took = ", ".join(f"{one.took_s:.1f}" for one in done)
        self.line("reloads", f"{len(done)} ({took} s)")
        for one in done:
            self.promise(one.ok, f"a reload ended with {one.exit_code}: {one.text.strip()[-600:]}")

    def end(self) -> NoReturn:
        for what in self._broken:
            print(f"BROKEN: {what}")
        print("promise kept" if not self._broken else "promise broken")
        sys.exit(1 if self._broken else 0)
