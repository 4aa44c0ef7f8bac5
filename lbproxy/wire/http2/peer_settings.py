"""SETTINGS of HTTP/2: those that we send, and those of the peer, checked (RFC 9113, 6.5; RFC 8441, 3)."""

from dataclasses import dataclass

from lbproxy.wire.http2 import frames
from lbproxy.wire.http2.errors import FLOW_CONTROL_ERROR, PROTOCOL_ERROR, ConnectionFailed

UNTOLD_STREAMS = 100  # assumed of a peer until it says how many streams it takes


@dataclass(frozen=True, slots=True)
class LocalSettings:
    """What we tell the peer."""

    max_streams: int = 100  # that a client may have open
    stream_window_bytes: int = frames.DEFAULT_WINDOW_BYTES
    connection_window_bytes: int = 1 << 20
    max_frame_bytes: int = frames.SMALLEST_MAX_FRAME_BYTES
    header_table_bytes: int = 4096
    header_list_bytes: int = 16384

    def first_frame(self, *, client: bool) -> bytes:
        pairs = [(frames.ENABLE_PUSH, 0)] if client else [(frames.MAX_CONCURRENT_STREAMS, self.max_streams)]
        pairs += [
            (frames.INITIAL_WINDOW_SIZE, self.stream_window_bytes),
            (frames.MAX_HEADER_LIST_SIZE, self.header_list_bytes),
        ]
        if self.max_frame_bytes != frames.SMALLEST_MAX_FRAME_BYTES:
            pairs.append((frames.MAX_FRAME_SIZE, self.max_frame_bytes))
        if self.header_table_bytes != 4096:
            pairs.append((frames.HEADER_TABLE_SIZE, self.header_table_bytes))
        if not client:
            pairs.append((frames.ENABLE_CONNECT_PROTOCOL, 1))
        return frames.settings(pairs)


class PeerSettings:
    """What the peer has told us last."""

    __slots__ = (
        "connect_protocol",
        "header_list_bytes",
        "header_table_bytes",
        "max_frame_bytes",
        "max_streams",
        "window_bytes",
    )

    def __init__(self) -> None:
        self.header_table_bytes = 4096  # the smallest that it has allowed (RFC 7541, 4.2)
        self.max_streams = UNTOLD_STREAMS
        self.window_bytes = frames.DEFAULT_WINDOW_BYTES
        self.max_frame_bytes = frames.SMALLEST_MAX_FRAME_BYTES
        self.header_list_bytes = 0  # 0: nothing was said
        self.connect_protocol = False

    def apply(self, payload: bytes, *, from_client: bool) -> None:
        """Raises ConnectionFailed. Settings that are not known are read over."""
        for setting, value in frames.read_settings(payload):
            if setting == frames.HEADER_TABLE_SIZE:
                self.header_table_bytes = min(self.header_table_bytes, value)
            elif setting == frames.ENABLE_PUSH:
                if value > 1 or (value and not from_client):
                    raise ConnectionFailed(PROTOCOL_ERROR, f"ENABLE_PUSH of {value}")
            elif setting == frames.MAX_CONCURRENT_STREAMS:
                self.max_streams = value
            elif setting == frames.INITIAL_WINDOW_SIZE:
                if value > frames.LARGEST_WINDOW_BYTES:
                    raise ConnectionFailed(FLOW_CONTROL_ERROR, f"INITIAL_WINDOW_SIZE of {value}")
                self.window_bytes = value
            elif setting == frames.MAX_FRAME_SIZE:
                if not frames.SMALLEST_MAX_FRAME_BYTES <= value <= frames.LARGEST_MAX_FRAME_BYTES:
                    raise ConnectionFailed(PROTOCOL_ERROR, f"MAX_FRAME_SIZE of {value}")
                self.max_frame_bytes = value
            elif setting == frames.MAX_HEADER_LIST_SIZE:
                self.header_list_bytes = value
            elif setting == frames.ENABLE_CONNECT_PROTOCOL:
                if value > 1 or (self.connect_protocol and not value):
                    raise ConnectionFailed(PROTOCOL_ERROR, f"ENABLE_CONNECT_PROTOCOL of {value}")
                self.connect_protocol = bool(value)
