"""The errors of an exchange. Knows no protocol and no socket."""


class LbproxyError(Exception):
    """Everything that lbproxy raises on purpose."""


class ProxyError(LbproxyError):
    """An exchange failed.

    `status` is the answer the client gets if none has begun; `token` is the RFC 9209 (2.3) error type that goes into
    Proxy-Status and the metrics.
    """

    def __init__(self, status: int, token: str, reason: str, page: str = "") -> None:
        """`page`: the body of the answer, text or HTML, in place of the usual one."""
        super().__init__(reason)
        self.status = status
        self.token = token
        self.reason = reason
        self.page = page
