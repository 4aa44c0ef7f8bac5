"""Resolve a generation once: directory, environment and settings, so that a rollback brings back exactly these."""

import os
import re
from pathlib import Path

from lbproxy.config.symlinks import dangling_symlink
from lbproxy.model import Generation
from lbproxy.settings import PoolSettings

_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)", re.DOTALL)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$", "`": "`"}


def resolve_generation(number: int, settings: PoolSettings) -> Generation:
    """Resolve the symlinks of the directory and read the env file. Raises ValueError with the place and the reason."""
    try:
        directory = os.path.realpath(settings.directory, strict=True)
    except OSError as exc:
        raise ValueError(
            f"pool.{settings.name}.directory: {settings.directory}: {_why(exc, settings.directory)}"
        ) from None
    if not os.path.isdir(directory):
        raise ValueError(f"pool.{settings.name}.directory: {settings.directory}: not a directory")
    env = read_env_file(settings.env_file) if settings.env_file is not None else {}
    return Generation(number, settings, directory, tuple((env | dict(settings.env)).items()))


def _why(exc: OSError, path: str) -> str:
    return f"{exc.strerror}{dangling_symlink(path)}"


def read_env_file(path: str) -> dict[str, str]:
    """Read `KEY=VALUE` lines: comments, `export`, 'single quotes' as they are, "double quotes" with escapes.

    There is no expansion, and a quoted value is on one line. Raises ValueError with every mistake.
    """
    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{path}: error: not UTF-8") from None
    except OSError as exc:
        raise ValueError(f"{path}: error: {_why(exc, path)}") from None
    found: dict[str, str] = {}
    problems = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        try:
            match = _LINE.fullmatch(text)
            if match is None:
                raise ValueError(f"expected KEY=VALUE, got {text!r}")
            found[match[1]] = _value(match[2])
        except ValueError as exc:
            problems.append(f"{path}:{number}: error: {exc}")
    if problems:
        raise ValueError("\n".join(problems))
    return found


def _value(text: str) -> str:
    if text[:1] in ("'", '"'):
        quote = text[0]
        pattern = r"'([^']*)'" if quote == "'" else r'"((?:[^"\\]|\\.)*)"'
        match = re.match(pattern, text)
        if match is None:
            raise ValueError(f"the quote {quote} is not closed")
        behind = text[match.end() :].strip()
        if behind and not behind.startswith("#"):
            raise ValueError(f"nothing may follow the closing quote, got {behind!r}")
        value = match[1] if quote == "'" else re.sub(r"\\(.)", _unescaped, match[1])
    else:
        value = re.split(r"\s#", " " + text, maxsplit=1)[0].strip()
    if "\0" in value:
        raise ValueError("a value cannot hold a NUL")
    return value


def _unescaped(match: re.Match[str]) -> str:
    return _ESCAPES.get(match[1], match[0])
