"""What is executed for a backend: its words, its environment, its program. Knows no process and no socket."""

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lbproxy.config.user import User, user_of, why_not
from lbproxy.errors import LbproxyError
from lbproxy.model import BackendId, Generation
from lbproxy.supervise import launch
from lbproxy.supervise.endpoint import Endpoint

_PLACEHOLDER = re.compile(r"\{(port|host|socket|fd|slot|generation)\}")
LISTEN_VARIABLES = ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")
# Ours, or meant for lbproxy itself: never passed on from our own environment.
_NOT_INHERITED = (
    *("PORT", "HOST", "LBPROXY_SOCKET", "LBPROXY_CONFIG", "LBPROXY_CONTROL"),
    *(*LISTEN_VARIABLES, "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"),
)


class CannotStart(LbproxyError):
    """A process cannot be started. The message is one line for the operator."""


@dataclass(frozen=True, slots=True)
class Order:
    """Everything that a spawn needs."""

    command: tuple[str, ...]
    env: Mapping[str, str]
    directory: str
    user: User | None
    fd: int | None = None  # of the listener that the process inherits


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


def order_for(id: BackendId, generation: Generation, endpoint: Endpoint, user: User | None) -> Order:
    """Raises CannotStart."""
    values = {**endpoint.values, "slot": str(id.slot), "generation": str(id.generation)}
    words = tuple(filled(word, values) for word in generation.settings.command or ())
    env = environment(id, generation, endpoint, user)
    directory = generation.directory
    if not os.path.isdir(directory):
        raise CannotStart(f"directory is gone: {directory}")
    program = find_program(words[0], directory, env.get("PATH", os.defpath))
    if endpoint.listener is None:
        return Order((program, *words[1:]), env, directory, user)
    fd = endpoint.listener.fileno()
    step = launch.command(sys.executable, fd, _who(user), (program, program, *words[1:]))
    return Order(step, env, directory, None, fd)


def filled(word: str, values: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        try:
            return values[match[1]]
        except KeyError:
            raise CannotStart(f"{match[0]} has no value with this 'bind'") from None

    return _PLACEHOLDER.sub(value, word)


def environment(id: BackendId, generation: Generation, endpoint: Endpoint, user: User | None) -> dict[str, str]:
    """CONTRACT.md 2, end. What `env` sets goes over what we inherited; what the endpoint needs goes over both."""
    env = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
    env |= {"PYTHONUNBUFFERED": "1", "WEB_CONCURRENCY": "1"}
    if user is not None:
        env |= {"HOME": user.home, "USER": user.name, "LOGNAME": user.name}
    env |= dict(generation.env)
    env |= {
        "LBPROXY_POOL": id.pool,
        "LBPROXY_SLOT": str(id.slot),
        "LBPROXY_GENERATION": str(id.generation),
        "NODE_APP_INSTANCE": str(id.slot - 1),  # PM2 counts from 0, and "instance 0 runs the cron jobs" is a habit
    }
    env |= endpoint.env
    if any("{fd}" in word for word in generation.settings.command or ()):
        # The command names the descriptor itself. gunicorn would take LISTEN_FDS for a second one, and fail (EBADF).
        env = {name: value for name, value in env.items() if name not in LISTEN_VARIABLES}
    return env


def find_program(word: str, directory: str, path: str) -> str:
    """The absolute path of what is executed. Raises CannotStart with the reason."""
    if "/" in word:
        found = Path(directory, word)
        if not found.exists():
            raise CannotStart(f"command not found: {word!r} (in {directory})")
        candidates = [found]
    else:
        candidates = [Path(directory, endpoint or ".", word) for endpoint in path.split(os.pathsep)]
        candidates = [candidate for candidate in candidates if candidate.is_file()]
        if not candidates:
            raise CannotStart(f"command not found: {word!r} (PATH is {path})")
    for candidate in candidates:
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return str(candidate)
    raise CannotStart(f"not executable: {candidates[0]}")


def _who(user: User | None) -> str:
    if user is None:
        return "-"
    return f"{user.uid}:{user.gid}:{','.join(map(str, user.groups))}"
