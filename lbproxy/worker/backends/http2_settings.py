"""What lbproxy tells a backend in SETTINGS, and how many streams one connection to it carries. Numbers only."""

from typing import Final

from lbproxy.wire.head import RESPONSE_HEAD_BYTES
from lbproxy.wire.http2.peer_settings import LocalSettings

MOST_STREAMS: Final = 256  # of one connection, whatever the backend allows
UNTOLD_STREAMS: Final = 32  # ... until it says what it allows
STREAM_WINDOW_BYTES: Final = 65535

SETTINGS: Final = LocalSettings(
    stream_window_bytes=STREAM_WINDOW_BYTES,
    # No stream that is read slowly stops the others: each can hold its own window and no more.
    connection_window_bytes=MOST_STREAMS * STREAM_WINDOW_BYTES,
    header_list_bytes=RESPONSE_HEAD_BYTES,
)
