"""The phases of a connection in the express lane: the one table that says what each of them waits for and how it ends.

Knows neither sockets nor records. record.py registers descriptors and arms deadlines by the row of the phase, and
`act()` carries out what the row says for the end of the time, the client's end, the backend's end, the cut of a drain
and the stop of the worker. README shows `diagram()`; tests/worker/express/test_phase.py brings every phase about on
real sockets and lets every event happen in it.
"""

from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Any, NamedTuple

from lbproxy.worker.io.reactor import READ, WRITE

EVENTS = {
    "over": "the limit is over",
    "client_gone": "the client goes",
    "backend_gone": "the backend goes",
    "cut": "the drain cuts",
    "stop": "the worker stops",
}


class Action(NamedTuple):
    """A method of the record, its argument (none if it is empty), and what the method does, for readers."""

    method: str
    argument: str
    says: str


class Phase:
    """One row. `client` and `backend` are the masks that are registered; `on_client` and `on_backend` the handlers.

    `limit` names the attribute of the record that holds the limit. A lazy limit is not armed anew for each exchange:
    it is worked out of `entered_at` when the reactor looks at the record (reactor.AT_LOOK).
    """

    __slots__ = (
        "backend",
        "backend_gone",
        "client",
        "client_gone",
        "cut",
        "is_lazy",
        "limit",
        "limit_s",
        "name",
        "on_backend",
        "on_client",
        "over",
        "stop",
        "waits_for",
    )

    def __init__(
        self,
        name: str,
        waits_for: str,
        *,
        client: tuple[int, str],
        backend: tuple[int, str],
        limit: str,
        over: Action,
        client_gone: Action,
        backend_gone: Action,
        cut: Action,
        stop: Action,
        is_lazy: bool = False,
    ) -> None:
        self.name = name
        self.waits_for = waits_for
        self.client, self.on_client = client
        self.backend, self.on_backend = backend
        self.limit = limit
        self.limit_s: Callable[[Any], float] = attrgetter(limit) if limit else _no_limit
        self.is_lazy = is_lazy
        self.over = over
        self.client_gone = client_gone
        self.backend_gone = backend_gone
        self.cut = cut
        self.stop = stop

    def __repr__(self) -> str:
        return f"<phase {self.name}>"

    def actions(self) -> Iterator[tuple[str, Action]]:
        """Each event's name and what it does in this phase."""
        return ((event, getattr(self, event)) for event in EVENTS)


def _no_limit(record: object) -> float:
    return float("inf")


_GOES_ON = Action("go_on", "", "goes on; the connection ends behind the answer")
_NO_LEASE = Action("go_on", "", "(no lease is held)")
_NO_BACKEND = Action("go_on", "", "(no backend is held)")
_ELSEWHERE = Action("go_on", "", "(the task lane decides)")
_CLOSED = Action("close", "", "closed")
_ABANDONED = Action("abandon", "", "closed, the backend's work is abandoned, 499 is logged unless a status was sent")
_UNSEEN = Action("go_on", "", "seen when the client is read again")
_CUT_TO_TASK = Action("resume", "cut", "to the task lane: sent again if that is safe, else 503 or 504")
_UPLOAD_BROKEN = Action("resume", "upload_broken", "to the task lane, which reads what the backend may have answered")

IDLE = Phase(
    "idle",
    "the next request",
    client=(READ, "on_ready"),
    backend=(0, ""),
    limit="view.settings.timeouts.idle_s",
    is_lazy=True,
    over=Action("close_if_silent", "", "closed, unless a request has come in that moment"),
    client_gone=_CLOSED,
    backend_gone=_NO_BACKEND,
    cut=_NO_LEASE,
    stop=Action("on_deadline", "", "closed when it has been silent for half a second"),
)
HEAD = Phase(
    "head",
    "the rest of a request's head",
    client=(READ, "on_ready"),
    backend=(0, ""),
    limit="view.settings.timeouts.header_s",
    over=Action("refuse_slow_head", "", "to the task lane: 408"),
    client_gone=Action("enter_buffered", "client_gone", "to the task lane: closed, or 400 after a part of a head"),
    backend_gone=_NO_BACKEND,
    cut=_NO_LEASE,
    stop=_GOES_ON,
)
BODY = Phase(
    "body",
    "the rest of a short body, for a second at most; no backend is claimed yet",
    client=(READ, "on_ready"),
    backend=(0, ""),
    limit="view.settings.timeouts.body_s",
    over=Action("enter_buffered", "slow_body", "to the task lane, which streams what still comes; else 408"),
    client_gone=Action("enter_buffered", "client_gone", "to the task lane: closed, 499 is logged"),
    backend_gone=_NO_BACKEND,
    cut=_NO_LEASE,
    stop=_GOES_ON,
)
CONNECTING = Phase(
    "connecting",
    "a connection to the backend",
    client=(READ, "on_ready"),  # not while a part of the body is still to come: it has nowhere to go
    backend=(WRITE, "on_connected"),
    limit="timeouts.connect_s",
    over=Action("connect_too_slow", "", "to the task lane, which claims anew"),
    client_gone=_ABANDONED,
    backend_gone=Action("connect_refused", "", "control is told; to the task lane, which claims anew"),
    cut=_CUT_TO_TASK,
    stop=_GOES_ON,
)
WAITING = Phase(
    "waiting",
    "the head of the response",
    client=(READ, "on_ready"),
    backend=(READ, "on_ready"),
    limit="timeouts.response_s",
    is_lazy=True,
    over=Action("resume", "slow_reply", "to the task lane: 504"),
    client_gone=_ABANDONED,
    backend_gone=Action("resume", "backend_ended", "to the task lane: sent again if that is safe, else 502"),
    cut=_CUT_TO_TASK,
    stop=_GOES_ON,
)
UPLOADING = Phase(
    "uploading",
    "more of the request's body, from the client",
    client=(READ, "on_ready"),  # through a pipe: on_upload
    backend=(READ, "on_ready"),
    limit="view.settings.timeouts.body_s",
    over=Action("resume", "slow_body", "to the task lane: 408"),
    client_gone=_ABANDONED,
    backend_gone=_UPLOAD_BROKEN,
    cut=_CUT_TO_TASK,
    stop=_GOES_ON,
)
BACKEND_FULL = Phase(
    "backend full",
    "room for the request's body in the backend's socket",
    client=(0, ""),
    backend=(READ | WRITE, "on_backend_takes"),
    limit="timeouts.idle_s",
    over=_UPLOAD_BROKEN,
    client_gone=_UNSEEN,
    backend_gone=_UPLOAD_BROKEN,
    cut=_CUT_TO_TASK,
    stop=_GOES_ON,
)
DOWNLOADING = Phase(
    "downloading",
    "more of the response's body, from the backend",
    client=(READ, "on_ready"),
    backend=(READ, "on_body"),
    limit="timeouts.idle_s",
    over=Action("cut_short", "connection_read_timeout", "closed: the client sees that a part is missing"),
    client_gone=_ABANDONED,
    backend_gone=Action("cut_short", "http_response_incomplete", "closed: the client sees that a part is missing"),
    cut=Action("cut_short", "cut", "closed: the client sees that a part is missing"),
    stop=_GOES_ON,
)
CLIENT_FULL = Phase(
    "client full",
    "room for the response in the client's socket",
    client=(WRITE, "on_flush"),
    backend=(0, ""),  # but a rest of less than BODY_BYTES is read all the same: READ, on_body
    limit="view.settings.timeouts.body_s",
    over=_ABANDONED,
    client_gone=_ABANDONED,
    backend_gone=Action("cut_short", "http_response_incomplete", "seen when it is read again: closed"),
    cut=Action("cut_short", "cut", "closed: the client sees that a part is missing"),
    stop=_GOES_ON,
)
AWAY = Phase(
    "away",
    "the task lane, or nothing: it is closed",
    client=(0, ""),
    backend=(0, ""),
    limit="",
    over=_ELSEWHERE,
    client_gone=_ELSEWHERE,
    backend_gone=_ELSEWHERE,
    cut=_ELSEWHERE,
    stop=_ELSEWHERE,
)

PHASES = (IDLE, HEAD, BODY, CONNECTING, WAITING, UPLOADING, BACKEND_FULL, DOWNLOADING, CLIENT_FULL, AWAY)

_MASKS = {0: "-", READ: "read", WRITE: "write", READ | WRITE: "read+write"}


def diagram() -> str:
    """The table as text, a block for each phase."""
    width = max(map(len, EVENTS.values()))
    blocks = []
    for phase in PHASES:
        limit = phase.limit.replace("view.settings", "listener").removesuffix("_s")
        if limit.startswith("timeouts"):
            limit = f"pool.{limit}"
        lines = [
            f"{phase.name}: waits for {phase.waits_for}",
            f"  client {_MASKS[phase.client]}, backend {_MASKS[phase.backend]}, limit {limit or '-'}",
            *(f"  {EVENTS[event]:<{width}}  -> {action.says}" for event, action in phase.actions()),
        ]
        blocks.append("\n".join(lines))
    return "\n".join(blocks) + "\n"
