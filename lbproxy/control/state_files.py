"""What outlives lbproxy: JSON files in `proxy.state_dir`, each written whole or not at all.

Knows directories and files. A directory that cannot be used costs a notice, and nothing else: lbproxy serves without.
"""

import json
import os
from collections.abc import Callable
from typing import Any

import trio

from lbproxy.telemetry.events import Event, Notice

VERSION = 1


class StateFiles:
    def __init__(self, directory: str | None, emit: Callable[[Event], None]) -> None:
        """`directory`: None = nothing is kept."""
        self._directory = directory or ""
        self._emit = emit
        self._dirty: dict[str, Callable[[], Any]] = {}
        self._changed = trio.Event()
        self._is_told = False

    def read(self, name: str) -> Any:
        """What was saved under this name; None if there is nothing that can be read."""
        path = self._path(name)
        if not self._directory or not os.path.exists(path):
            return None
        try:
            with open(path, encoding="utf-8") as file:
                document = json.load(file)
            if document["version"] != VERSION:
                raise ValueError(f"version {document['version']!r}")
            return document["value"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as exc:
            self.ignored(name, str(exc))
            return None

    def ignored(self, name: str, why: str) -> None:
        """What was saved makes no sense: it is written anew with the next change."""
        self._emit(Notice(f"{self._path(name)} is ignored: {why}"))

    def save(self, name: str, value: Callable[[], Any]) -> None:
        """Write it soon; `value` is asked then, so that many changes are one write."""
        self._dirty[name] = value
        self._changed.set()

    async def run(self) -> None:
        """Write what is saved, in a thread; all of it when it is cancelled."""
        try:
            while True:
                await self._changed.wait()
                self._changed = trio.Event()
                with trio.CancelScope(shield=True):  # what is taken is written
                    for name, text in self._texts():
                        await trio.to_thread.run_sync(self._write, name, text)
        finally:
            self.flush()

    def flush(self) -> None:
        """Write what is not written yet. Blocks."""
        for name, text in self._texts():
            self._write(name, text)

    def _texts(self) -> list[tuple[str, str]]:
        dirty, self._dirty = self._dirty, {}
        return [(name, json.dumps({"version": VERSION, "value": value()})) for name, value in dirty.items()]

    def _write(self, name: str, text: str) -> None:
        if not self._directory:
            return
        path = self._path(name)
        try:
            os.makedirs(self._directory, mode=0o700, exist_ok=True)
            with open(path + ".new", "w", encoding="utf-8", opener=_private) as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(path + ".new", path)
            self._is_told = False
        except OSError as exc:
            if not self._is_told:
                self._is_told = True
                self._emit(Notice(f"what outlives lbproxy cannot be kept: {path}: {exc.strerror or exc}"))

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, f"{name}.json")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
