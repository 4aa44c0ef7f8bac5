"""Completion as a shell has it: bash runs the script, which asks a real lbproxy."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lbproxy.cli import completion, main
from lbproxy.cli.main import run

ASK = """
source <(lbproxy completion bash)
complete -p lbproxy
ask() { COMP_WORDS=("$@"); COMP_CWORD=$(($#-1)); COMPREPLY=(); _lbproxy_completion lbproxy; echo "${COMPREPLY[*]}"; }
ask lbproxy rel
ask lbproxy reload --c
ask lbproxy completion ""
ask lbproxy explain pool.web.drain.w
"""


def test_bash_completes_commands_options_and_keys(tmp_path: Path) -> None:
    program = tmp_path / "lbproxy"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m lbproxy.cli.main "$@"\n')
    program.chmod(0o755)
    done = subprocess.run(
        ["bash", "--norc", "-c", ASK],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )
    assert done.stderr == ""
    registered, *answers = done.stdout.splitlines()
    assert registered.endswith("-F _lbproxy_completion lbproxy")
    assert answers == [
        "reload",
        "--config-only --config --control --color",
        "bash zsh fish",
        "pool.web.drain.websocket",
    ]


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_every_shell_has_a_script_that_it_can_read(
    shell: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(["completion", shell], {}) == 0
    script = capsys.readouterr().out
    assert f"{completion.VARIABLE}={shell}_complete" in script
    if shutil.which(shell):
        (tmp_path / "script").write_text(script)
        subprocess.run([shell, "-n", str(tmp_path / "script")], check=True, timeout=20)


def test_another_shell_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", "tcsh"], {}) == 2
    assert run(["completion", "tcsh"], {}) == 2
    assert run(["completion"], {}) == 2
    assert "fish" in capsys.readouterr().err


def test_the_variable_has_one_name() -> None:
    assert main._COMPLETION == completion.VARIABLE
