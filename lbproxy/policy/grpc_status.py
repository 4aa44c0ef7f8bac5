"""The gRPC status of an answer that lbproxy makes itself, for a client that speaks gRPC.

Follows the gRPC project's mapping of HTTP statuses, and its description of the codes where that knows better: what was
too large is RESOURCE_EXHAUSTED, a time limit is DEADLINE_EXCEEDED. Knows no bytes.
"""

from typing import Final

DEADLINE_EXCEEDED: Final = 4
PERMISSION_DENIED: Final = 7
RESOURCE_EXHAUSTED: Final = 8
UNIMPLEMENTED: Final = 12
INTERNAL: Final = 13
UNAVAILABLE: Final = 14
UNAUTHENTICATED: Final = 16

_OF_HTTP: Final = {
    401: UNAUTHENTICATED,
    403: PERMISSION_DENIED,
    404: UNIMPLEMENTED,
    408: DEADLINE_EXCEEDED,
    413: RESOURCE_EXHAUSTED,
    429: UNAVAILABLE,
    431: RESOURCE_EXHAUSTED,
    501: UNIMPLEMENTED,
    502: UNAVAILABLE,
    503: UNAVAILABLE,
    504: DEADLINE_EXCEEDED,
}
# Error types (RFC 9209) of what a drain has ended, whatever its status: the client may try again.
_GONE: Final = ("cut", "destination_unavailable")


def grpc_status(status: int, token: str = "") -> int:
    """The code for the HTTP status that the answer would have, and its RFC 9209 error type."""
    return UNAVAILABLE if token in _GONE else _OF_HTTP.get(status, INTERNAL)
