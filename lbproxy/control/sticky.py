"""Tokens of sticky cookies: a keyed hash of what a client sticks to. Workers only look them up.

A token tells nothing of the slot, and nobody without the key can make one. The key is the file's (`sticky.key`), else
one that is made at the first start and kept in `state_dir`: so cookies are good over reloads and restarts.
"""

import hmac
import os
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable

from lbproxy.control.diff import target_of
from lbproxy.model import BackendSpec
from lbproxy.settings import Secret
from lbproxy.telemetry.events import Event, Notice

FILE = "sticky.key"
KEY_BYTES = 32
TOKEN_BYTES = 16
_PURPOSE = b"lbproxy sticky cookie"


class StickyTokens:
    """`directory`: None = the key is as old as this process."""

    def __init__(self, directory: str | None, emit: Callable[[Event], None]) -> None:
        self._directory = directory
        self._emit = emit
        self._own = b""  # read, or made, when it is first needed
        self._keys: dict[str, bytes] = {}  # of pools that the file gives one for
        self._made: dict[tuple[str, str], str] = {}

    def use(self, keys: Iterable[tuple[str, Secret]]) -> None:
        """The keys of the file, by pool."""
        wanted = {pool: key.value.encode(errors="surrogateescape") for pool, key in keys}
        if wanted != self._keys:
            self._keys = wanted
            self._made.clear()

    def token(self, spec: BackendSpec) -> str:
        pool, identity = spec.id.pool, stuck_to(spec)
        token = self._made.get((pool, identity))
        if token is None:
            key = self._keys.get(pool) or self._own_key()
            said = b"\0".join((_PURPOSE, pool.encode(), identity.encode(errors="surrogateescape")))
            digest = hmac.digest(key, said, "sha256")[:TOKEN_BYTES]
            token = self._made[pool, identity] = urlsafe_b64encode(digest).rstrip(b"=").decode()
        return token

    def _own_key(self) -> bytes:
        if not self._own:
            self._own = self._read() or self._make()
        return self._own

    def _read(self) -> bytes:
        """Empty: there is none that is good."""
        if self._directory is None:
            return b""
        path = os.path.join(self._directory, FILE)
        try:
            with open(path, encoding="ascii") as file:
                key = bytes.fromhex(file.read(4 * KEY_BYTES))
        except FileNotFoundError:
            return b""
        except (OSError, ValueError) as exc:
            self._emit(Notice(f"{path} cannot be read ({exc}): sticky clients get new cookies"))
            return b""
        if len(key) != KEY_BYTES:
            self._emit(Notice(f"{path} holds no key of {KEY_BYTES} bytes: sticky clients get new cookies"))
            return b""
        return key

    def _make(self) -> bytes:
        key = secrets.token_bytes(KEY_BYTES)
        if self._directory is None:
            return key
        path = os.path.join(self._directory, FILE)
        try:
            os.makedirs(self._directory, mode=0o700, exist_ok=True)
            with open(path + ".new", "w", encoding="ascii", opener=_private) as file:
                file.write(key.hex() + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(path + ".new", path)
        except OSError as exc:
            self._emit(Notice(f"{path} cannot be kept ({exc.strerror or exc}): sticky cookies are good until the end"))
        return key


def stuck_to(spec: BackendSpec) -> str:
    """What a client sticks to: the slot; of a fixed address the address, whose place in the list may change."""
    target = target_of(spec)
    return f"slot {spec.slot}" if target is None else f"address {target}"


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
