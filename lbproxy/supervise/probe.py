"""One probe of a backend, and its result in words for the operator.

Knows an address and the pool's settings. policy/health.py counts the results.
"""

from dataclasses import dataclass

import trio

from lbproxy.address import Address
from lbproxy.http2_client import NoHttp2Answer
from lbproxy.http_client import CannotAsk, NoAnswer, reason_of
from lbproxy.settings import PoolSettings
from lbproxy.supervise import grpc_probe
from lbproxy.supervise.backend_get import connect_to, get, with_headers
from lbproxy.wire.head import Refused
from lbproxy.wire.proxy_protocol import own_header

PROBE_BODY_BYTES = 64 * 1024  # read so that the backend does not see a reset; shown are only:
SHOWN_BYTES = 200
BODY_S = 0.25


@dataclass(frozen=True, slots=True)
class ProbeResult:
    passed: bool | None  # None: the probe could not be sent, which says nothing about the backend
    detail: str


async def probe(address: Address, settings: PoolSettings) -> ProbeResult:
    """Raises nothing."""
    health = settings.health
    asked = f"GET {health.path}: " if health.path is not None else f"{grpc_probe.CHECK[1:]}: " * health.grpc
    try:
        with trio.fail_after(health.timeout_s):
            stream = await connect_to(address, settings)
            async with stream:
                if health.grpc:
                    passed, said = await grpc_probe.check(stream, address, settings)
                    return ProbeResult(passed, f"{grpc_probe.CHECK[1:]} {said}")
                greeting = own_header(settings.send_proxy)
                if health.path is None:
                    if greeting:
                        await stream.send_all(greeting)
                    return ProbeResult(True, "connected")
                return await _get(stream, address, settings)
    except trio.TooSlowError:
        return ProbeResult(False, f"{asked}no answer within {health.timeout_s:g}s")
    except trio.BrokenResourceError as exc:
        return ProbeResult(False, asked + reason_of(exc.__cause__))
    except CannotAsk as exc:
        return ProbeResult(None, f"cannot probe: {exc}")
    except (OSError, NoAnswer, NoHttp2Answer) as exc:
        return ProbeResult(False, asked + reason_of(exc))


async def _get(stream: trio.abc.Stream, address: Address, settings: PoolSettings) -> ProbeResult:
    health = settings.health
    asked = f"GET {health.path}"
    fields = with_headers(health, {"User-Agent": "lbproxy-probe", "Accept": "*/*"})
    path, most_bytes = health.path or "/", PROBE_BODY_BYTES
    try:
        answer = await get(stream, address, settings, path, fields, most_bytes=most_bytes, body_s=BODY_S)
    except Refused as exc:  # lbproxy could not forward this response either
        return ProbeResult(False, f"{asked} answered what cannot be forwarded: {exc.reason}")
    passed = any(low <= answer.status <= high for low, high in health.expect)
    text = answer.body[:SHOWN_BYTES].decode("utf-8", "backslashreplace")
    return ProbeResult(passed, f"{asked} answered {answer.status}" + (f": {text!r}" if text and not passed else ""))
