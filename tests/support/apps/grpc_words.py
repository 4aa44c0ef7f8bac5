"""The service that the gRPC servers of the tests offer: raw bytes as messages, no protobuf.

A call's metadata says what it asks for: x-sleep (seconds), x-size (bytes of the answer), x-fail (a status code and a
message), x-gzip (the answer is compressed), x-late (sent back in the trailers), x-echo-… (in the initial metadata).
"""

import argparse
import os

SERVICE = "lbproxy.test.Echo"
UNARY, COLLECT, COUNT, CHAT = "Unary", "Collect", "Count", "Chat"
HOLD, CANCELLED, SET_HEALTH, SEEN = "Hold", "Cancelled", "SetHealth", "Seen"
LONGEST_BYTES = 16 * 1024 * 1024
OPTIONS = (
    ("grpc.max_receive_message_length", LONGEST_BYTES),
    ("grpc.max_send_message_length", LONGEST_BYTES),
    ("grpc.so_reuseport", 0),
)


def path_of(method: str) -> str:
    return f"/{SERVICE}/{method}"


def who() -> str:
    """The backend as `slot@generation`."""
    return f"{os.environ.get('LBPROXY_SLOT', '0')}@{os.environ.get('LBPROXY_GENERATION', '0')}"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT", "0")))
    parser.add_argument("--aio", action="store_true")
    parser.add_argument("--health", choices=("serving", "not_serving", "absent"), default="serving")
    parser.add_argument("--grace", type=float, default=1.0)
    parser.add_argument("--age-ms", type=int, default=2**31 - 1)  # of a connection: GOAWAY follows
    return parser.parse_args()


def address(port: int) -> str:
    socket = os.environ.get("LBPROXY_SOCKET")
    return f"unix:{socket}" if socket else f"127.0.0.1:{port}"
