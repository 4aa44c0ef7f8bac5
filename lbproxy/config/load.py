"""The configuration: a file or a command line in, frozen settings out, or every mistake at once.

    load(path) -> Settings                              raises ConfigInvalid
    document(path) -> the file as TOML gives it         raises ConfigInvalid
    from_command(listen, size, command) -> Settings     raises ConfigInvalid

One document goes through four readers: checks.py compares values with each other, machine_checks.py with the machine,
unsupported.py takes out what is not supported yet, and the schema checks each value. All findings are located in the
text and reported in its order.
"""

import codecs
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from lbproxy.config import checks, machine_checks, schema, tls_checks, validate
from lbproxy.config.build import build
from lbproxy.config.control_path import (
    control_path_for_listener,
    named_path,
    resolve,
    state_dir,
    state_dir_for_listener,
)
from lbproxy.config.locate import Places, locate
from lbproxy.config.problems import ConfigInvalid, Finding, Path, Problem, dotted, source_line, without_echoes
from lbproxy.config.secret import KEYS, Secrets
from lbproxy.config.unsupported import take_out
from lbproxy.settings import Settings

_SYNTAX_PLACE = re.compile(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", re.DOTALL)

# The names in messages of the parts of a command line without a file.
_ON_COMMAND_LINE: dict[Path, str] = {("listener", 0, "address"): "-l", ("pool", "web", "size"): "-n"}


def load(path: str | os.PathLike[str], full: str | None = None, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the file. Raises ConfigInvalid, whose `text` is the report for the user.

    `full`: its absolute path as it was named when lbproxy started (named_path). A reload must not ask again: by then
    the working directory may be an old release. `environ`: where `env:NAME` is looked up.
    """
    file = os.fspath(path)
    full = named_path(file) if full is None else full
    text = _read(file, full)
    base = os.path.dirname(full)
    tables, findings = _examine(_parse(file, text), base, Secrets(base, environ))
    if tables is None or findings:
        places = locate(text)
        raise ConfigInvalid(_located(file, text, places, finding) for finding in findings)
    control = resolve(full, tables.proxy.control if tables.proxy is not None else None)
    return build(tables, file, base, control, state_dir=state_dir(full))


def document(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The file as TOML gives it. Raises ConfigInvalid."""
    file = os.fspath(path)
    return _parse(file, _read(file, named_path(file)))


def place_of(path: str | os.PathLike[str], key: str) -> str:
    """`lb.toml:5:1`, where a key of a valid file stands ("pool.web.command", "listener.0.tls"); only the file if it is
    not there."""
    file = os.fspath(path)
    places, words = locate(_read(file, named_path(file))), key.split(".")
    numbered: Path = tuple(int(word) if word.isdigit() else word for word in words)
    found = next((parts for parts in (tuple(words), numbered) if parts in places.keys), None)
    return ":".join(map(str, (file, *places.key(found)))) if found is not None else file


def problem_at(path: str | None, at: Path, message: str) -> Problem:
    """A mistake that is found when the file is valid as such, with its place; without one if the file has changed."""
    if path is None:
        return Problem("lbproxy", 0, 0, message, "")
    try:
        text = _read(path, named_path(path))
        _parse(path, text)
    except ConfigInvalid:
        return Problem(path, 0, 0, message, "")
    line, column = locate(text).key(at)
    return Problem(path, line, column, message, source_line(text, line))


def from_command(listen: str, size: int, command: Sequence[str], base: str | None = None) -> Settings:
    """The form without a file: one listener before one pool, "web". Raises ConfigInvalid.

    `base`: the working directory as it was named when lbproxy started.
    """
    given = {"listener": [{"address": listen}], "pool": {"web": {"command": list(command), "size": size}}}
    base = named_path("") if base is None else base
    tables, findings = _examine(given, base)
    if tables is None or findings:
        options = [(_ON_COMMAND_LINE.get(finding.path, "command"), finding.message) for finding in findings]
        raise ConfigInvalid(Problem(option, 0, 0, message, "") for option, message in options)
    return build(tables, None, base, control_path_for_listener(listen), state_dir=state_dir_for_listener(listen))


def _examine(
    document: dict[str, Any], base: str, secrets: Secrets | None = None
) -> tuple[schema.Document | None, list[Finding]]:
    # The checks come first: they see `mode = "tcp"` before it is taken out.
    findings = [*checks.check(document), *tls_checks.check(document)]
    findings += [*machine_checks.check(document, base), *take_out(document)]
    tables = validate.read(document, secrets)
    return (None, without_echoes(findings + tables)) if isinstance(tables, list) else (tables, findings)


def _read(file: str, full: str) -> str:
    try:
        with open(full, "rb") as opened:
            raw = opened.read().removeprefix(codecs.BOM_UTF8)
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else str(exc)
        raise ConfigInvalid([Problem(file, 0, 0, f"cannot be read: {reason}", "")]) from None
    try:
        return raw.decode()
    except UnicodeDecodeError as exc:
        before = raw[: exc.start].decode()
        text = raw.decode(errors="backslashreplace")
        raise _not_toml(file, text, f"not UTF-8: {exc.reason}", len(before)) from None


def _parse(file: str, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        found = _SYNTAX_PLACE.fullmatch(str(exc))
        message = found[1] if found is not None else str(exc)
        message = f"not TOML: {message[:1].lower()}{message[1:]}"
        if message.endswith("invalid value"):
            message += " (a string stands in quotes)"
        if found is None or found[2] is None:
            raise _not_toml(file, text, message, len(text.rstrip())) from None
        line, column = int(found[2]), int(found[3])
        raise ConfigInvalid([Problem(file, line, column, message, source_line(text, line))]) from None
    except RecursionError:
        raise ConfigInvalid([Problem(file, 0, 0, "not TOML: nested too deeply", "")]) from None


def _not_toml(file: str, text: str, message: str, offset: int) -> ConfigInvalid:
    line = text.count("\n", 0, offset) + 1
    column = offset - text.rfind("\n", 0, offset)
    return ConfigInvalid([Problem(file, line, column, message, source_line(text, line))])


def _located(file: str, text: str, places: Places, finding: Finding) -> Problem:
    line, column = places.table(finding.path) if finding.at_table else places.key(finding.path)
    message = f"{dotted(finding.path)}: {finding.message}" if finding.named else finding.message
    if finding.see is not None:
        message += f" (line {places.key(finding.see)[0]})"
    # A misspelt `token` is not masked in its line.
    source = "" if finding.means in KEYS else source_line(text, line)
    return Problem(file, line, column, message, source)
