"""What an authority would find if it were asked now: names, port 80 and CAA records, before an order spends a try.

Asks the system's resolver and connects; asks no authority. Knows no library of others.
"""

import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import trio

from lbproxy.address import Address
from lbproxy.http_client import Ask, CannotAsk, NoAnswer, ask, connect, reason_of
from lbproxy.settings import AcmeSettings
from lbproxy.wire import dns
from lbproxy.wire.head import Refused

HTTP_PORT = 80
LONGEST_S = 10.0  # for one name
ANSWER_S = 3.0
_KNOWN = {"api.letsencrypt.org": "letsencrypt.org"}  # what CAA calls an authority, by the end of its server's name
_PATH = "/.well-known/acme-challenge/lbproxy-check"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where questions go: other ports and another resolver in tests."""

    port: int = HTTP_PORT
    resolver: tuple[str, int] | None = None  # None: none is known

    @classmethod
    def of_this_machine(cls, file: str = "/etc/resolv.conf") -> "Surroundings":
        try:
            with open(file, encoding="ascii", errors="replace") as opened:
                servers = [words[1] for line in opened if (words := line.split())[:1] == ["nameserver"] and words[1:]]
        except OSError:
            servers = []
        return cls(resolver=(servers[0], 53) if servers else None)


async def examine(acme: AcmeSettings, around: Surroundings) -> list[str]:
    """What is to be mended, one line each, with the name in front."""
    found: dict[str, list[str]] = {}

    async def one(name: str) -> None:
        with trio.move_on_after(LONGEST_S) as limit:
            found[name] = [*await _reachable(name, around.port), *await _allowed(name, acme, around)]
        if limit.cancelled_caught:
            found[name] = [f"cannot be examined within {LONGEST_S:g}s: the DNS or port {around.port} does not answer"]

    async with trio.open_nursery() as nursery:
        for name in acme.domains:
            nursery.start_soon(one, name)
    return [f"{name}: {line}" for name in acme.domains for line in found[name]]


async def _reachable(name: str, port: int) -> list[str]:
    try:
        looked_up = await trio.socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except OSError as exc:
        return [f"has no address in the DNS ({reason_of(exc)}): add an A or AAAA record"]
    lines = []
    for address in dict.fromkeys(str(where[0]) for *_, where in looked_up):
        why = await _why_no_answer(name, Address(host=address, port=port))
        if why is not None:
            elsewhere = "" if _is_here(address) else ", which is no address of this machine"
            lines.append(f"port {port} of {address}{elsewhere}: {why}")
    return lines


async def _why_no_answer(name: str, address: Address) -> str | None:
    request = Ask("GET", _PATH, (("Host", name),))
    with trio.move_on_after(ANSWER_S):
        try:
            async with await connect(address) as stream:
                await ask(stream, request, most_bytes=1024, body_s=ANSWER_S)
        except (NoAnswer, CannotAsk, Refused, OSError, trio.BrokenResourceError) as exc:
            return f"{reason_of(exc)} (is lbproxy running, and is the port open?)"
        return None
    return f"no answer within {ANSWER_S:g}s (a firewall?)"


def _is_here(address: str) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


async def _allowed(name: str, acme: AcmeSettings, around: Surroundings) -> list[str]:
    """CAA (RFC 8659): the records of the name, or of the nearest one above it that has some."""
    if around.resolver is None:
        return ["CAA records cannot be asked for: /etc/resolv.conf names no resolver"]
    labels = name.split(".")
    records: Sequence[dns.Caa] = ()
    for above in [".".join(labels[start:]) for start in range(len(labels))]:
        try:
            records = await _caa(above, around.resolver)
        except (OSError, ValueError) as exc:
            return [f"CAA records of {above} cannot be asked for: {exc}"]
        if records:
            break
    issuers = [record.value for record in records if record.tag == "issue"]
    host = urlsplit(acme.server).hostname or ""
    authority = next((value for end, value in _KNOWN.items() if host.endswith(end)), None)
    if not issuers or authority in issuers:
        return []
    only = ", ".join(issuer or "nobody" for issuer in issuers)
    if authority is None:
        return [] if any(issuers) else ["its CAA records allow nobody to issue certificates"]
    return [f"its CAA records allow only {only}: add {authority}"]


async def _caa(name: str, resolver: tuple[str, int]) -> tuple[dns.Caa, ...]:
    """Raises OSError and ValueError."""
    asked = dns.question(secrets.randbelow(2**16), name)
    family = socket.AF_INET6 if ":" in resolver[0] else socket.AF_INET
    with trio.socket.socket(family, socket.SOCK_DGRAM) as link, trio.move_on_after(ANSWER_S):
        await link.connect(resolver)
        await link.send(asked)
        while True:
            try:
                return dns.answer(await link.recv(dns.MOST_BYTES), asked)
            except LookupError:
                continue  # somebody else's
    raise ValueError(f"the resolver {resolver[0]} does not answer")
