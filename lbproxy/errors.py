"""What can fail in an exchange, and what may be done about it. Knows no protocol and no socket."""

from enum import StrEnum


class Side(StrEnum):
    """Who failed."""

    CLIENT = "client"
    BACKEND = "backend"
    PROXY = "proxy"


class Stage(StrEnum):
    """How far the exchange had come when it failed."""

    CLAIM = "claim"  # no backend held yet
    CONNECT = "connect"  # no connection to the backend yet: nothing can have had an effect
    SEND = "send"  # the request is partly or wholly sent, no byte of the response has come
    RECEIVE = "receive"  # a part of the response has come from the backend
    REPLY = "reply"  # a part of the response has gone to the client: no error page any more


class LbproxyError(Exception):
    """Everything that lbproxy raises on purpose."""


class ProxyError(LbproxyError):
    """An exchange failed.

    `status` is the answer the client gets if none has begun; `token` is the RFC 9209 (2.3) error type
    that goes into Proxy-Status and the metrics; `retry` says that another backend may be tried.
    """

    def __init__(self, side: Side, stage: Stage, status: int, token: str, reason: str, *, retry: bool = False) -> None:
        super().__init__(reason)
        self.side = side
        self.stage = stage
        self.status = status
        self.token = token
        self.reason = reason
        self.retry = retry
