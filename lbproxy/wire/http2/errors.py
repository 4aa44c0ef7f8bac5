"""The errors of HTTP/2 (RFC 9113, 7): codes, and what a connection or a stream ends with."""

from typing import Final

from lbproxy.errors import LbproxyError

NO_ERROR: Final = 0
PROTOCOL_ERROR: Final = 1
INTERNAL_ERROR: Final = 2
FLOW_CONTROL_ERROR: Final = 3
SETTINGS_TIMEOUT: Final = 4
STREAM_CLOSED: Final = 5
FRAME_SIZE_ERROR: Final = 6
REFUSED_STREAM: Final = 7
CANCEL: Final = 8
COMPRESSION_ERROR: Final = 9
CONNECT_ERROR: Final = 10
ENHANCE_YOUR_CALM: Final = 11
INADEQUATE_SECURITY: Final = 12
HTTP_1_1_REQUIRED: Final = 13

NAMES: Final = (
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
)


def name_of(code: int) -> str:
    """The name of an error code for a log line; a code that is not registered in hexadecimal."""
    return NAMES[code] if code < len(NAMES) else f"{code:#x}"


class ConnectionFailed(LbproxyError):
    """The peer broke a rule of the connection: GOAWAY with `code`, then the end."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{name_of(code)}: {reason}")
        self.code = code
        self.reason = reason


class StreamFailed(LbproxyError):
    """The peer broke a rule of one stream, which is reset with `code`; the connection goes on."""

    def __init__(self, stream_id: int, code: int, reason: str) -> None:
        super().__init__(f"stream {stream_id}: {name_of(code)}: {reason}")
        self.stream_id = stream_id
        self.code = code
        self.reason = reason


class NoStreams(LbproxyError):
    """The connection to a backend takes no further stream now, or none any more."""


class MalformedMessage(LbproxyError):
    """A field list that is no HTTP message (RFC 9113, 8.1.1): a stream error of type PROTOCOL_ERROR."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
