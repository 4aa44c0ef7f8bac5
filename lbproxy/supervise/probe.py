"""One probe of a backend, and its result in words for the operator.

Knows an address and the pool's settings. policy/health.py counts the results.
"""

from dataclasses import dataclass

import trio

from lbproxy.address import Address
from lbproxy.http_client import Ask, CannotAsk, NoAnswer, ask, connect, reason_of
from lbproxy.settings import PoolSettings
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
    asked = f"GET {health.path}: " if health.path is not None else ""
    try:
        with trio.fail_after(health.timeout_s):
            stream = await connect(address, tls=settings.tls)
            async with stream:
                greeting = own_header(settings.send_proxy)
                if health.path is None:
                    if greeting:
                        await stream.send_all(greeting)
                    return ProbeResult(True, "connected")
                return await _ask(stream, address, settings)
    except trio.TooSlowError:
        return ProbeResult(False, f"{asked}no answer within {health.timeout_s:g}s")
    except trio.BrokenResourceError as exc:
        return ProbeResult(False, asked + reason_of(exc.__cause__))
    except CannotAsk as exc:
        return ProbeResult(None, f"cannot probe: {exc}")
    except (OSError, NoAnswer) as exc:
        return ProbeResult(False, asked + reason_of(exc))


async def _ask(stream: trio.abc.Stream, address: Address, settings: PoolSettings) -> ProbeResult:
    health, greeting, bare_lf = settings.health, own_header(settings.send_proxy), settings.accept_bare_lf
    host = health.host or address.authority
    fields = {"User-Agent": "lbproxy-probe", "Accept": "*/*"}
    ours = {name.lower(): name for name in fields}
    for name, value in health.headers:
        fields.pop(ours.get(name.lower(), ""), None)
        fields[name] = value
    asked = f"GET {health.path}"
    request = Ask("GET", health.path or "/", (("Host", host), *fields.items()), greeting=greeting)
    try:
        answer = await ask(stream, request, most_bytes=PROBE_BODY_BYTES, body_s=BODY_S, accept_bare_lf=bare_lf)
    except Refused as exc:  # lbproxy could not forward this response either
        return ProbeResult(False, f"{asked} answered what cannot be forwarded: {exc.reason}")
    passed = any(low <= answer.status <= high for low, high in health.expect)
    text = answer.body[:SHOWN_BYTES].decode("utf-8", "backslashreplace")
    return ProbeResult(passed, f"{asked} answered {answer.status}" + (f": {text!r}" if text and not passed else ""))
