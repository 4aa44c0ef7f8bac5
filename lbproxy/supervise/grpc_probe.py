"""A probe of a backend that speaks gRPC: its health service is asked (grpc.health.v1.Health/Check).

Knows an open connection and the pool's settings. The result is in words for the operator. The one message that is sent
and the one that is read are so small that no protobuf library is needed: an empty request asks for the server as a
whole, and the answer's first field is the status.
"""

from urllib.parse import unquote

import trio

from lbproxy.address import Address
from lbproxy.http2_client import Http2Answer, Http2Ask, ask
from lbproxy.settings import PoolSettings
from lbproxy.supervise.backend_get import host_of, scheme_of, with_headers
from lbproxy.wire.grpc import first_message, message
from lbproxy.wire.head import Refused

CHECK = "/grpc.health.v1.Health/Check"
_BODY_BYTES = 64 * 1024
_STATES = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
_CODES = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
]
_SERVING = 1


async def check(stream: trio.abc.Stream, address: Address, settings: PoolSettings) -> tuple[bool, str]:
    """Whether the health service says SERVING, and what it says. Raises what ask() raises."""
    health = settings.health
    fields = {"User-Agent": "lbproxy-probe", "Content-Type": "application/grpc", "TE": "trailers"}
    fields["grpc-timeout"] = f"{max(1, int(health.timeout_s * 1000))}m"
    host, scheme = host_of(address, health), scheme_of(address)
    request = Http2Ask("POST", CHECK, host, with_headers(health, fields), message(b""), scheme)
    try:
        return _judged(await ask(stream, request, most_bytes=_BODY_BYTES, body_s=health.timeout_s))
    except Refused as exc:
        return False, f"answered what cannot be forwarded: {exc.reason}"


def _judged(answer: Http2Answer) -> tuple[bool, str]:
    if answer.status != 200 or not answer.fields.get("content-type", "").startswith("application/grpc"):
        return False, f"answered {answer.status}: this is not a gRPC server"
    code = answer.fields.get("grpc-status", "")
    if code not in ("", "0"):
        name = _CODES[int(code)] if code.isdecimal() and int(code) < len(_CODES) else f"status {code}"
        hint = "the server has no health service" if name == "UNIMPLEMENTED" else ""
        text = unquote(answer.fields.get("grpc-message", "")) or hint
        return False, f"answered {name}" + (f": {text[:200]}" if text else "")
    said = first_message(answer.body)
    if said is None:
        return False, "answered without a message"
    state = _status_in(said)
    if state is None or not code:
        return False, "the answer is not a HealthCheckResponse" if state is None else "the answer broke off"
    return state == _SERVING, f"answered {_STATES.get(state, state)}"


def _status_in(said: bytes) -> int | None:
    """Field 1 of a HealthCheckResponse, an enum; 0 where it is left out. None: the bytes are something else."""
    state, at = 0, 0
    while at < len(said):
        tag, at = _varint(said, at)
        value, at = _varint(said, at)
        if tag == 0x08:
            state = value
        elif tag & 7 == 2:
            at += value  # of a length-delimited field that is not known here
        elif tag & 7:
            return None
        if at < 0 or at > len(said):
            return None
    return state


def _varint(said: bytes, at: int) -> tuple[int, int]:
    """The number, and the offset behind it: -1 if it is cut short, or if `at` is."""
    value = shift = 0
    while 0 <= at < len(said) and shift < 64:
        byte = said[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    return 0, -1
