"""The coverage-guided fuzzer on every parser, each for so long: `python tests/fuzz/run.py --seconds 60 [TARGET ...]`.

Needs atheris (`.venv/bin/pip install -e '.[test,fuzz]'`). Each target runs in a process of its own, at most --jobs at
a time, and begins with the seeds of targets.py. An input that breaks something is left in run/fuzz/, and the command
ends with 1; `--again TARGET FILE` shows it again, with neither atheris nor other inputs.
"""

import argparse
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOUND = ROOT / "run" / "fuzz"
sys.path.insert(0, str(ROOT / "tests"))

WATCHED = ["lbproxy.wire", "lbproxy.link", "lbproxy.control.api_server", "lbproxy.control.api", "fuzz"]
MAX_INPUT_BYTES = 2000
MEMORY_MB = 1024
SLOW_S = 5


def fuzz(name: str, arguments: list[str]) -> None:
    """Never returns: libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=WATCHED):
        from fuzz.targets import TARGETS
    atheris.Setup([sys.argv[0], *arguments], TARGETS[name])
    atheris.Fuzz()


def run(name: str, seconds: int) -> tuple[str, int, str]:
    """The target's name, the exit code, and the end of what the fuzzer said."""
    from fuzz.targets import WORDS, seeds

    with tempfile.TemporaryDirectory(prefix="lbproxy-fuzz-") as folder:
        corpus = Path(folder, "corpus")
        corpus.mkdir()
        for number, seed in enumerate(seeds(name)):
            (corpus / f"seed{number}").write_bytes(seed)
        words = Path(folder, "words")
        words.write_text("".join(f'"{word}"\n' for word in WORDS))
        options = [
            f"-max_total_time={seconds}",
            f"-max_len={MAX_INPUT_BYTES}",
            f"-rss_limit_mb={MEMORY_MB}",
            f"-timeout={SLOW_S}",
            f"-artifact_prefix={FOUND}/{name}-",
            f"-dict={words}",
            "-print_final_stats=1",
            str(corpus),
        ]
        done = subprocess.run(
            [sys.executable, __file__, "--target", name, *options], capture_output=True, text=True, check=False
        )
        said = done.stdout + done.stderr
        return name, done.returncode, said


def figures(said: str) -> str:
    """Inputs tried, and how much of the code they reach."""
    tried = [line.split()[-1] for line in said.splitlines() if "number_of_executed_units" in line]
    reached = [line.partition("cov: ")[2].split()[0] for line in said.splitlines() if "cov: " in line]
    return f"{tried[-1] if tried else '?'} inputs, {reached[-1] if reached else '?'} edges"


def complaint(said: str) -> str:
    """Why it stopped, and where the input is."""
    _, found, behind = said.partition("=== Uncaught Python exception: ===")
    why = behind.partition("\n==")[0] if found else said[-2000:]
    return "\n".join([why.strip(), *(line for line in said.splitlines() if "Test unit written" in line)])


def main() -> int:
    if sys.argv[1:2] == ["--target"]:
        fuzz(sys.argv[2], sys.argv[3:])
    from fuzz.targets import TARGETS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"one or more of {', '.join(TARGETS)}")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (60)")
    parser.add_argument("--jobs", type=int, default=1, help="targets at a time (1)")
    parser.add_argument("--again", nargs=2, metavar=("TARGET", "FILE"), help="run one input through a target")
    options = parser.parse_args()
    if options.again:
        TARGETS[options.again[0]](Path(options.again[1]).read_bytes())
        return 0
    unknown = set(options.targets) - set(TARGETS)
    if unknown:
        parser.error(f"no target {', '.join(sorted(unknown))}; there is: {', '.join(TARGETS)}")
    FOUND.mkdir(parents=True, exist_ok=True)
    broken = 0
    with ThreadPoolExecutor(options.jobs) as pool:
        for name, code, said in pool.map(lambda name: run(name, options.seconds), options.targets or TARGETS):
            print(f"{name:<18} {'ok' if code == 0 else 'BROKEN'}   {figures(said)}", flush=True)
            if code:
                broken += 1
                print(complaint(said))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
