"""Who may ask what on [admin]: the Host, the token, and what a change needs. Decides; answers nothing itself.

A name that is not ours in Host is a page of another site whose name was pointed at us (DNS rebinding). A change needs
JSON and our own Origin, so that a form of another site cannot send it with the password that the browser remembers.
"""

import base64
import binascii
import hashlib
import hmac
import math
from collections import deque
from collections.abc import Callable, Iterable
from ipaddress import IPv6Address, ip_address, ip_network

import trio

from lbproxy.control.api_server import Declined, Fields, Question
from lbproxy.settings import AdminSettings

WRONG_TOKENS, WITHIN_S = 10, 60.0
MOST_ADDRESSES = 10_000
CHALLENGE: Fields = (("WWW-Authenticate", 'Basic realm="lbproxy", charset="UTF-8"'),)
_PORTS = {"http": "80", "https": "443"}


class WrongTokens:
    """The wrong tokens of the last minute, by address. Bounded: the address that was added first is forgotten.

    `on_locked` gets each address that has sent too many.
    """

    def __init__(
        self, now: Callable[[], float] = trio.current_time, on_locked: Callable[[str], None] = lambda address: None
    ) -> None:
        self._now = now
        self._on_locked = on_locked
        self._times: dict[str, deque[float]] = {}

    def note(self, peer: str) -> None:
        name = _network(peer)
        if name not in self._times and len(self._times) >= MOST_ADDRESSES:
            del self._times[next(iter(self._times))]
        self._times.setdefault(name, deque(maxlen=WRONG_TOKENS)).append(self._now())
        if self.wait_s(peer):
            self._on_locked(name or "a client of the unix socket")

    def wait_s(self, peer: str) -> float:
        """How long the address has to wait; 0.0: it may try."""
        times = self._times.get(_network(peer))
        if times is None or len(times) < WRONG_TOKENS:
            return 0.0
        return max(0.0, times[0] + WITHIN_S - self._now())


def _network(peer: str) -> str:
    """An IPv6 client has a whole /64 of addresses."""
    try:
        address = ip_address(peer)
    except ValueError:
        return peer
    return str(ip_network((address, 64), strict=False)) if isinstance(address, IPv6Address) else peer


def check(question: Question, admin: AdminSettings, name: str, wrong: WrongTokens) -> None:
    """Raises Declined. `name`: proxy.name."""
    if not is_our_host(question.host, (name, *admin.hosts)):
        raise Declined(421, f"the Host {question.host!r} is not one of [admin] (hosts)")
    reads = question.method in ("GET", "HEAD")
    if admin.token is None:
        if not reads:
            raise Declined(403, "[admin] has no token, so it is read-only")
        return
    if not (reads and question.path in admin.open):
        _check_token(question, admin.token.value, wrong)
    if not reads:
        _check_change(question)


def is_our_host(host: str | None, names: Iterable[str]) -> bool:
    """Whether `Host` is an IP address, localhost or one of `names`. HTTP/1.0 has none, and no browser speaks that."""
    if host is None:
        return True
    bare = host.rpartition(":")[0] if ":" in host.rpartition("]")[2] else host
    bare = bare.removesuffix(".").lower()
    try:
        ip_address(bare.removeprefix("[").removesuffix("]"))
    except ValueError:
        return bare == "localhost" or bare in {name.lower() for name in names}
    return True


def _check_token(question: Question, token: str, wrong: WrongTokens) -> None:
    given = given_token(question.fields.get("authorization", ""))
    if given is None:
        raise Declined(401, "a token is needed: Authorization: Bearer TOKEN", fields=CHALLENGE)
    wait_s = wrong.wait_s(question.peer)
    if wait_s:
        retry: Fields = (("Retry-After", str(math.ceil(wait_s))),)
        raise Declined(429, f"{WRONG_TOKENS} wrong tokens within a minute: try again later", fields=retry)
    # Digests, because compare_digest tells the length of what it compares.
    if not hmac.compare_digest(hashlib.sha256(given).digest(), hashlib.sha256(token.encode()).digest()):
        wrong.note(question.peer)
        raise Declined(401, "the token is wrong", fields=CHALLENGE)


def given_token(authorization: str) -> bytes | None:
    """The token of `Bearer TOKEN`, or the password of `Basic …`; None without any."""
    scheme, _, value = authorization.partition(" ")
    match scheme.lower():
        case "bearer":
            return value.strip().encode()
        case "basic":
            try:
                return base64.b64decode(value.strip(), validate=True).partition(b":")[2]
            except (binascii.Error, ValueError):
                return b""
    return None


def _check_change(question: Question) -> None:
    media_type = question.fields.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise Declined(415, "a change needs Content-Type: application/json")
    origin = question.fields.get("origin")
    if origin is not None and not is_same_origin(origin, question.host or ""):
        raise Declined(403, f"the Origin {origin!r} is not the Host")


def is_same_origin(origin: str, host: str) -> bool:
    scheme, _, name = origin.lower().partition("://")
    port = _PORTS.get(scheme)
    return port is not None and name.removesuffix(f":{port}") == host.lower().removesuffix(f":{port}")
