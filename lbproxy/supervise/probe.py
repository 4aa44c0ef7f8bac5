"""One probe of a backend, and its result in words for the operator.

Knows an address and the pool's settings. policy/health.py counts the results.
"""

from dataclasses import dataclass

import trio

from lbproxy.address import Address
from lbproxy.http2_client import Http2Answer, NoHttp2Answer
from lbproxy.http_client import Answer, Ask, CannotAsk, NoAnswer, ask, connect, reason_of
from lbproxy.settings import PoolSettings
from lbproxy.supervise import http2_probe
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
    asked = f"GET {health.path}: " if health.path is not None else f"{http2_probe.CHECK[1:]}: " * health.grpc
    try:
        with trio.fail_after(health.timeout_s):
            stream = await connect(address, tls=settings.tls, protocol="h2" if settings.protocol == "h2" else "")
            async with stream:
                if health.grpc:
                    passed, said = await http2_probe.check(stream, address, settings)
                    return ProbeResult(passed, f"{http2_probe.CHECK[1:]} {said}")
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
    try:
        if settings.protocol == "http/1.1":
            answer: Answer | Http2Answer = await _ask(stream, address, settings)
        else:
            answer = await http2_probe.get(stream, address, settings)
    except Refused as exc:  # lbproxy could not forward this response either
        return ProbeResult(False, f"{asked} answered what cannot be forwarded: {exc.reason}")
    passed = any(low <= answer.status <= high for low, high in health.expect)
    text = answer.body[:SHOWN_BYTES].decode("utf-8", "backslashreplace")
    return ProbeResult(passed, f"{asked} answered {answer.status}" + (f": {text!r}" if text and not passed else ""))


async def _ask(stream: trio.abc.Stream, address: Address, settings: PoolSettings) -> Answer:
    health, greeting, bare_lf = settings.health, own_header(settings.send_proxy), settings.accept_bare_lf
    host = health.host or address.authority
    fields = {"User-Agent": "lbproxy-probe", "Accept": "*/*"}
    ours = {name.lower(): name for name in fields}
    for name, value in health.headers:
        fields.pop(ours.get(name.lower(), ""), None)
        fields[name] = value
    request = Ask("GET", health.path or "/", (("Host", host), *fields.items()), greeting=greeting)
    return await ask(stream, request, most_bytes=PROBE_BODY_BYTES, body_s=BODY_S, accept_bare_lf=bare_lf)
