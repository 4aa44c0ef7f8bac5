"""A client command of lbproxy, run in the test's own process: a process of its own takes 0.1 s of CPU to import it.

The same code, from the command line to the exit code. What a process is alone for (signals, terminals, a closed
standard output) is tested with `Serving.command`.
"""

import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from subprocess import CompletedProcess
from typing import IO
from unittest import mock

from lbproxy.cli.main import run


def can_run(words: Sequence[str]) -> bool:
    """Standard output belongs to the whole process: one command at a time, in the main thread. `serve` changes the
    process it runs in: its signals, and where the package is imported from."""
    return "serve" not in words and threading.current_thread() is threading.main_thread()


def run_command(words: Sequence[str]) -> "CompletedProcess[str]":
    with _file() as out, _file() as err:
        with redirect_stdout(out), redirect_stderr(err), mock.patch.dict("os.environ", COLUMNS="80"):
            try:
                code = run(list(words))
            except SystemExit as exc:
                code = exc.code if isinstance(exc.code, int) else int(exc.code is not None)
        return CompletedProcess(["lbproxy", *words], code, _text(out), _text(err))


def _file() -> IO[str]:
    """A file, because commands may ask their output for its descriptor. No terminal."""
    return tempfile.TemporaryFile("w+", encoding=sys.getfilesystemencoding())


def _text(file: IO[str]) -> str:
    file.flush()
    file.seek(0)
    return file.read()
