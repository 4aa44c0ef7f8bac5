"""Who asked for what: one JSON line for each change that somebody asked for, in `log.audit_path`."""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from lbproxy.telemetry.events import Event, Notice
from lbproxy.telemetry.sink import Sink
from lbproxy.telemetry.text import iso_time


class Audit:
    def __init__(self, emit: Callable[[Event], None]) -> None:
        self._emit = emit
        self._path: str | None = None
        self._sink: Sink | None = None

    def write_to(self, path: str | None) -> None:
        """From now on; None: nowhere. A file that cannot be opened costs a notice."""
        if path == self._path:
            return
        self.close()
        self._path = path
        if path is not None:
            try:
                self._sink = Sink(path)
            except OSError as exc:
                self._path = None
                self._emit(Notice(f"log.audit_path: {path}: {exc.strerror or exc}"))

    def note(self, asked_by: Mapping[str, Any], command: str, what: Mapping[str, Any], result: str) -> None:
        """`what`: the arguments."""
        if self._sink is None:
            return
        line = {
            "time": iso_time(time.time()),
            "uid": asked_by.get("uid"),
            "pid": asked_by.get("pid"),
            "how": asked_by.get("how"),
            "command": command,
            "what": dict(what),
            "result": result,
        }
        self._sink.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")

    @property
    def is_written(self) -> bool:
        return self._sink is None or self._sink.backlog_bytes == 0

    def reopen(self) -> None:
        """After a rotation. Raises OSError."""
        if self._sink is not None:
            self._sink.reopen()

    def close(self) -> None:
        if self._sink is not None:
            self._sink.close(1.0)
            self._sink = None
