"""The Redis channel of [events]: each event is one PUBLISH. The only importer of redis (extra `redis`).

The library blocks, so it runs in a thread, one event at a time. Knows the URL, and never shows it.
"""

from typing import Any

import trio

from lbproxy.control.event_sink import TRY_S, Delivery, NotDelivered


class RedisPublisher:
    def __init__(self, url: str, channel: str) -> None:
        """Raises ValueError for a URL that the library does not take, ImportError where it is not installed."""
        import redis

        self._errors: tuple[type[Exception], ...] = (redis.RedisError, OSError)
        self._channel = channel
        self._redis: Any = redis.Redis.from_url(
            url, socket_timeout=TRY_S, socket_connect_timeout=TRY_S, health_check_interval=30, retry=None
        )

    async def deliver(self, event: Delivery) -> None:
        """Raises NotDelivered. The caller limits the time."""
        try:
            await trio.to_thread.run_sync(self._redis.publish, self._channel, event.body, abandon_on_cancel=True)
        except self._errors as exc:
            raise NotDelivered(_reason(exc)) from None

    def close(self) -> None:
        self._redis.close()


def _reason(exc: BaseException) -> str:
    """Without the library's own words, which name the server."""
    while not isinstance(exc, OSError) and isinstance(exc.__cause__ or exc.__context__, OSError):
        exc = exc.__cause__ or exc.__context__ or exc
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror.lower()
    return {"AuthenticationError": "the server refused user or password"}.get(type(exc).__name__, type(exc).__name__)
