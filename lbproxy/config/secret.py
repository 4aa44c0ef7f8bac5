"""Secrets of the configuration: written as they are, or as the name of a variable or a file that holds them.

No message quotes a secret, and no report of a mistake shows its line as it is written.
"""

import os
import re
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field

from lbproxy.settings import Secret, Settings

LONGEST_BYTES = 4096
KEYS = ("token", "secret", "password", "url", "key")
# A literal secret in a line of the file. `env:NAME` and `file:PATH` say only where it is, and so does the `key` beside
# a `cert`. Instead of the tables of [events], a URL may have been written.
_NAMED = "|".join((*KEYS, "webhook", "redis"))
_PLACE = r"""(?!env:|file:|[^"'\s]*\.(?:pem|key)["'])"""
_CERTIFICATE_KEY = re.compile(r"""(\bcert\b.*\bkey["']?\s*=\s*["'])""")
_LITERAL = re.compile(rf"\b({_NAMED})" + rf"""(["']?\s*=\s*)("{_PLACE}[^"]*"?|'{_PLACE}[^']*'?)""")

_PEM = re.compile(r"-----BEGIN.*")  # a private key where its path should be


@dataclass(frozen=True, slots=True)
class Secrets:
    """Where secrets are looked up: the directory that relative paths start from, and the variables."""

    directory: str = ""
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)

    def read(self, value: object, least_bytes: int = 1) -> Secret:
        """Raises ValueError with the reason."""
        if not isinstance(value, str):
            raise ValueError('expected a string: the secret itself, "env:NAME" or "file:PATH"')
        kind, colon, name = value.partition(":")
        if colon and kind == "env":
            secret = Secret(self._variable(name), name)
        elif colon and kind == "file":
            secret = Secret(_content(os.path.join(self.directory, name)))
        else:
            secret = Secret(value)
        said = f" in {value}" if secret.value != value else ""
        length = len(secret.value.encode(errors="surrogateescape"))
        if length < least_bytes:
            raise ValueError(f"the secret{said} has {length} bytes, at least {least_bytes} are needed")
        if not secret.value.isascii() or not secret.value.isprintable() or " " in secret.value:
            raise ValueError(
                f"the secret{said} holds bytes other than visible ASCII, which a header field cannot carry"
            )
        return secret

    def _variable(self, name: str) -> str:
        if not name:
            raise ValueError("env: needs the name of a variable, as in 'env:ADMIN_TOKEN'")
        if name not in self.environ:
            raise ValueError(f"the variable {name} is not set")
        return self.environ[name]


def _content(path: str) -> str:
    """The file without the line ends at its end."""
    try:
        if not os.path.isfile(path):
            raise ValueError(f"there is no file {path!r}")
        with open(path, "rb") as file:
            content = file.read(LONGEST_BYTES + 1)
    except OSError as exc:
        raise ValueError(f"{path!r} cannot be read: {exc.strerror}") from None
    if len(content) > LONGEST_BYTES:
        raise ValueError(f"{path!r} is longer than {LONGEST_BYTES} bytes: it holds no secret")
    return content.decode(errors="surrogateescape").rstrip("\r\n")


def withhold(settings: Settings, environ: MutableMapping[str, str]) -> dict[str, str]:
    """Take the variables of the secrets out of `environ`, which every child process inherits. Returns them."""
    secrets = [settings.admin.token] if settings.admin is not None else []
    if (webhook := settings.events.webhook) is not None:
        secrets += [webhook.url, webhook.secret]
    if (redis := settings.events.redis) is not None:
        secrets.append(redis.url)
    secrets += [key for _, key in settings.sticky_keys]
    names = [secret.variable for secret in secrets if secret is not None and secret.variable is not None]
    if environ is os.environ:
        from lbproxy.privileges import overwrite_variable

        for name in names:
            overwrite_variable(name)
    return {name: environ.pop(name) for name in names if name in environ}


def masked(line: str) -> str:
    """A line of the file as a report may show it."""
    line = _PEM.sub("-----BEGIN…", line)
    before, key, behind = [*_CERTIFICATE_KEY.split(line, maxsplit=1), "", ""][:3]
    return _LITERAL.sub(r'\1\2"…"', before) + key + _LITERAL.sub(r'\1\2"…"', behind)
