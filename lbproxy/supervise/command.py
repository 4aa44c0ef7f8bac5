"""The command of a backend: its words, its environment, its program. Knows no process and no socket."""

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lbproxy.config.symlinks import dangling_symlink
from lbproxy.config.user import User, user_of, why_not
from lbproxy.errors import LbproxyError
from lbproxy.model import BackendSpec, Generation
from lbproxy.supervise import launch
from lbproxy.supervise.endpoint import Endpoint

_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{(port|host|socket|fd|slot|generation)\}")  # {{ and }} are braces
LISTEN_VARIABLES = ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")
# Variables that lbproxy sets, or that are meant for lbproxy itself: a backend does not inherit them.
_NOT_INHERITED = (
    *("PORT", "HOST", "LBPROXY_SOCKET", "LBPROXY_CONFIG", "LBPROXY_CONTROL"),
    *(*LISTEN_VARIABLES, "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"),
)


class CannotStart(LbproxyError):
    """A process cannot be started. The message is one line for the operator."""


@dataclass(frozen=True, slots=True)
class Order:
    """The arguments of a spawn."""

    command: tuple[str, ...]
    env: Mapping[str, str]
    directory: str
    user: User | None
    fd: int | None = None  # of the listener that the process inherits
    fds: tuple[int, ...] = ()  # further descriptors that it inherits


def user_to_become(text: str | None) -> User | None:
    """The user that a backend is started as; None: the user that lbproxy runs as. Raises CannotStart."""
    if text is None:
        return None
    try:
        user = user_of(text)
    except ValueError as exc:
        raise CannotStart(f"user: {exc}") from None
    why = why_not(user)
    if why is not None:
        raise CannotStart(why)
    return None if (user.uid, user.gid) == (os.geteuid(), os.getegid()) else user


def order_for(spec: BackendSpec, endpoint: Endpoint, user: User | None) -> Order:
    """Raises CannotStart."""
    generation = spec.generation
    values = {**endpoint.values, "slot": str(spec.slot), "generation": str(generation.number)}
    words = tuple(filled(word, values) for word in generation.settings.command or ())
    env = environment(spec, endpoint, user)
    directory = generation.directory
    if not os.path.isdir(directory):
        raise CannotStart(f"directory is gone: {directory}")
    program = find_program(words[0], directory, env.get("PATH", os.defpath))
    if endpoint.listener is None:
        return Order((program, *words[1:]), env, directory, user)
    fd = endpoint.listener.fileno()
    step = launch.command(sys.executable, fd, credentials(user), (program, program, *words[1:]))
    return Order(step, env, directory, None, fd)


def filled(word: str, values: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        if match[1] is None:
            return match[0][0]
        try:
            return values[match[1]]
        except KeyError:
            raise CannotStart(f"{match[0]} has no value with this 'bind'") from None

    return _PLACEHOLDER.sub(value, word)


def hook_environment(generation: Generation, user: User | None) -> dict[str, str]:
    """What all processes of a generation have: `env` overrides the inherited variables."""
    env = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
    env |= {"PYTHONUNBUFFERED": "1", "WEB_CONCURRENCY": "1"}
    if user is not None:
        env |= {"HOME": user.home, "USER": user.name, "LOGNAME": user.name}
    env |= dict(generation.env)
    return env | {"LBPROXY_POOL": generation.settings.name, "LBPROXY_GENERATION": str(generation.number)}


def environment(spec: BackendSpec, endpoint: Endpoint, user: User | None) -> dict[str, str]:
    """The environment of CONTRACT.md 2, end. The endpoint's variables override all others."""
    generation = spec.generation
    env = hook_environment(generation, user) | {
        "LBPROXY_SLOT": str(spec.slot),
        "NODE_APP_INSTANCE": str(spec.slot - 1),  # PM2 counts from 0, and "instance 0 runs the cron jobs" is a habit
    }
    env |= endpoint.env
    if any("{fd}" in word for word in generation.settings.command or ()):
        # The command names the descriptor itself. gunicorn would take LISTEN_FDS for a second one, and fail (EBADF).
        env = {name: value for name, value in env.items() if name not in LISTEN_VARIABLES}
    return env


def find_program(word: str, directory: str, path: str) -> str:
    """The absolute path of the program. Raises CannotStart with the reason."""
    if "/" in word:
        found = Path(directory, word)
        if not os.path.exists(found):
            raise CannotStart(f"command not found: {word!r} (in {directory}){dangling_symlink(str(found))}")
        candidates = [found]
    else:
        candidates = [Path(directory, folder or ".", word) for folder in path.split(os.pathsep)]
        # A directory of PATH that this user may not enter is passed over, as by a shell: Path.is_file would raise.
        candidates = [candidate for candidate in candidates if os.path.isfile(candidate)]
        if not candidates:
            raise CannotStart(f"command not found: {word!r} (PATH is {path})")
    for candidate in candidates:
        if os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return str(candidate)
    raise CannotStart(f"not executable: {candidates[0]}")


def credentials(user: User | None) -> str:
    """The user as launch.py takes it: uid:gid:groups, or "-" for no change."""
    if user is None:
        return "-"
    return f"{user.uid}:{user.gid}:{','.join(map(str, user.groups))}"
