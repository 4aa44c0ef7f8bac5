"""The program of this process: how it was started, and how it is executed anew, in its own place or as a trial.

Knows words, variables and descriptors. Does not know what they lead to.
"""

import os
import sys
from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass, field

VARIABLE = "LBPROXY_TAKE_OVER"  # the descriptor of the document; with "trial:" before it nothing is taken over
_TRIAL = "trial:"


@dataclass(frozen=True, slots=True)
class Program:
    """`environ`: the environment of the start, with the variables that are taken out of it later. `document_fd`: of
    the document that an earlier program hands on; None: this is no upgrade."""

    words: tuple[str, ...] = ()
    environ: dict[str, str] = field(default_factory=dict)
    document_fd: int | None = None
    is_trial: bool = False

    @classmethod
    def take(cls, environ: MutableMapping[str, str]) -> "Program":
        """Return the program of this process. The variable is removed: no child may take anything over."""
        given = environ.pop(VARIABLE, "")
        fd = given.removeprefix(_TRIAL)
        words = (sys.executable, *sys.orig_argv[1:])
        return cls(words, dict(environ), int(fd) if fd.isdigit() else None, given.startswith(_TRIAL))

    def trial_environment(self, document_fd: int) -> dict[str, str]:
        return {**self.environ, VARIABLE: f"{_TRIAL}{document_fd}"}

    def execute(self, document_fd: int, keep: Iterable[int]) -> None:
        """Execute it in place of this process, with these descriptors open. Raises OSError, and then nothing has
        changed."""
        opened = []
        try:
            for fd in (document_fd, *keep):
                if not os.get_inheritable(fd):
                    os.set_inheritable(fd, True)
                    opened.append(fd)
            os.execve(self.words[0], self.words, {**self.environ, VARIABLE: str(document_fd)})
        finally:
            for fd in opened:
                os.set_inheritable(fd, False)
