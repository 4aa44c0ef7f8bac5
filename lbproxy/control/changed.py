"""A condition that several tasks wait for, and that any change may make true."""

from collections.abc import Callable

import trio


class Changed:
    def __init__(self) -> None:
        self._event = trio.Event()

    def notify(self) -> None:
        """Something has changed: every waiting task looks at its condition again."""
        self._event.set()
        self._event = trio.Event()

    async def wait(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._event.wait()
