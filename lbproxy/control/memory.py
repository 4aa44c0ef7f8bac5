"""What lbproxy remembers over its own end: the history of changes, and the generations for a rollback.

Joins the history and the generations with their files, and the verdicts with the audit log.
"""

from collections.abc import Callable
from typing import Any

import trio

from lbproxy.control.audit import Audit
from lbproxy.control.context import ControlContext
from lbproxy.control.generations import Kept
from lbproxy.control.history import History, Record
from lbproxy.control.plain import from_plain, plain
from lbproxy.control.state_files import StateFiles
from lbproxy.telemetry.log import Log

HISTORY, GENERATIONS = "history", "generations"


class Memory:
    def __init__(self, directory: str | None, context: ControlContext, audit: Audit) -> None:
        self.history = History(self._on_record)
        self._context = context
        self._audit = audit
        self._files = StateFiles(directory, context.emit)

    def restore(self) -> None:
        """What an earlier lbproxy has saved. Numbers of generations and ids of changes go on behind its own."""
        self._read(HISTORY, self.history.restore)
        self._context.ids.go_on_behind(str(record.get("id", "")) for record in self.history.records)
        self._read(GENERATIONS, self._restore_generations)

    def _restore_generations(self, saved: Any) -> None:
        self._context.generations.restore([from_plain(Kept, one) for one in saved["kept"]])
        self._context.fleet.go_on_behind({str(pool): int(number) for pool, number in saved["numbers"].items()})

    def _read(self, name: str, restore: Callable[[Any], None]) -> None:
        saved = self._files.read(name)
        if saved is None:
            return
        try:
            restore(saved)
        except (ValueError, TypeError, KeyError, AttributeError) as exc:
            self._files.ignored(name, repr(exc))

    async def run(self, log: Log, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Record the changes, and save what has changed."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._files.run)
            with log.subscribe(lambda event: getattr(event, "reload", None) is not None) as events:
                task_status.started()
                async for event in events:
                    self.history.observe(event, events.at)

    def save_generations(self) -> None:
        self._files.save(GENERATIONS, self.hand_on_generations)

    def hand_on_generations(self) -> Any:
        generations, fleet = self._context.generations, self._context.fleet
        return {"kept": [plain(one) for one in generations.kept()], "numbers": fleet.numbers()}

    def flush(self) -> None:
        """Write what is to be saved now. Blocks."""
        self._files.flush()

    def take_over(self, records: list[Record], generations: Any, ids: dict[str, int]) -> None:
        """Go on from an earlier program of this control, not from the files: those may be out of reach."""
        self.history.restore(records)
        self._context.ids.go_on_behind(f"{letter}{number}" for letter, number in ids.items())
        self._restore_generations(generations)

    def _on_record(self, record: Record) -> None:
        named = ("id", "pool", "backend", "generation", "size")
        what: dict[str, Any] = {key: record[key] for key in named if key in record}
        self._audit.note(record["asked_by"], record["verb"], what, record["result"])
        self._files.save(HISTORY, lambda: list(self.history.records))
        self.save_generations()
