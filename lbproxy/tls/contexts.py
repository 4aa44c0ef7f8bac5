"""TLS contexts: what a connection is secured with, at either end.

Knows certificates as open descriptors (a key is never looked up by its name here), and the rules for versions and
ciphers. Knows no sockets.
"""

import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lbproxy.errors import LbproxyError

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
# Mozilla's intermediate profile (5.7) without finite-field Diffie-Hellman, for which a server needs parameters. The
# order is the server's; that of TLS 1.3 is OpenSSL's own. The curves are OpenSSL's own as well, X25519 first: Python
# could only name a single one.
CIPHERS = ":".join(
    f"ECDHE-{key}-{cipher}"
    for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
    for key in ("ECDSA", "RSA")
)
# Encryption in the kernel, where Python (3.12), OpenSSL and the kernel offer it. OpenSSL goes on without it elsewhere.
KERNEL_TLS = getattr(ssl, "OP_ENABLE_KTLS", 0)
# Python asks OpenSSL to take an end without close_notify for a clean one (OP_IGNORE_UNEXPECTED_EOF): a cut connection
# would be a complete answer.
TELLS_CUT_ENDS = ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
# Of TLS 1.3, after a full handshake (OpenSSL: two). Each resumption brings the next one, and each costs 20 us.
TICKETS = 1
CLIENT_AUTH = {"require": ssl.CERT_REQUIRED, "request": ssl.CERT_OPTIONAL}


class BadCertificate(LbproxyError):
    """A certificate, a key or a list of authorities cannot be used. The text says which, and why."""


@dataclass(frozen=True, slots=True)
class Pair:
    """The descriptors of a chain and of its private key (PEM), and the DNS names of the certificate, lower case."""

    chain: int
    key: int
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ServerRules:
    """What a TLS server offers and asks. `protocols`: of ALPN, the preferred one first. `client_auth`: require |
    request | None."""

    protocols: tuple[str, ...] = ("http/1.1",)
    min_version: str = "1.2"
    client_auth: str | None = None


class ServerContexts:
    """The contexts of one listener: one for each certificate, chosen by the name that a client asks for.

    An exact name comes first, then a wildcard for one label, then the first certificate. Contexts are never shared
    between listeners: each has its own keys for tickets and its own sessions, so a session that was made with one set
    of client authorities cannot be resumed under another (CVE-2025-23419).
    """

    def __init__(self, pairs: Sequence[Pair], client_ca: int | None = None) -> None:
        """Read everything from the descriptors, which stay the caller's. Slow: some milliseconds. Raises
        BadCertificate. `follow` comes before the first handshake."""
        if not pairs:
            raise BadCertificate("there is no certificate")
        authorities = None if client_ca is None else _read(client_ca)
        contexts = [_server_context(pair, authorities) for pair in pairs]
        self.first = contexts[0]
        self._all = contexts
        self.is_single = len(contexts) == 1  # whatever name a client asks for
        self.offered: frozenset[bytes] = frozenset()  # of ALPN; empty: nothing is offered, and anything goes
        self._by_name: dict[str, ssl.SSLContext] = {}
        for pair, context in zip(pairs, contexts, strict=True):
            for name in pair.names:
                self._by_name.setdefault(name, context)

    def follow(self, rules: ServerRules) -> None:
        """The rules of handshakes that begin from now on. Where client certificates are required and no authorities
        came with the certificates, no client gets in."""
        self.offered = frozenset(name.encode() for name in rules.protocols)
        for context in self._all:
            context.minimum_version = VERSIONS[rules.min_version]
            context.verify_mode = CLIENT_AUTH.get(rules.client_auth or "", ssl.CERT_NONE)
            if rules.protocols:
                context.set_alpn_protocols(rules.protocols)

    def named(self, name: str | None) -> ssl.SSLContext:
        """The context for a client that asks for `name`: ASCII, any case; None: it asks for no name."""
        if name is None:
            return self.first
        name = name.lower().removesuffix(".")
        return self._by_name.get(name) or self._by_name.get("*." + name.partition(".")[2]) or self.first


def _server_context(pair: Pair, authorities: str | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers(CIPHERS)
    context.options |= (
        ssl.OP_NO_COMPRESSION
        | ssl.OP_NO_RENEGOTIATION
        | ssl.OP_CIPHER_SERVER_PREFERENCE
        | ssl.OP_SINGLE_ECDH_USE
        | KERNEL_TLS
    )
    context.options &= TELLS_CUT_ENDS
    context.num_tickets = TICKETS
    _load_pair(context, pair)
    if authorities is not None:
        try:
            context.load_verify_locations(cadata=authorities)
        except (ssl.SSLError, ValueError) as exc:
            raise BadCertificate(f"the client authorities cannot be read: {reason_of(exc)}") from None
    return context


def _load_pair(context: ssl.SSLContext, pair: Pair) -> None:
    def ask() -> str:
        raise BadCertificate("the private key has a pass phrase: lbproxy asks nobody for one")

    try:
        # Opened anew, so that it does not matter who has read how far.
        context.load_cert_chain(f"/proc/self/fd/{pair.chain}", f"/proc/self/fd/{pair.key}", password=ask)
    except ssl.SSLError as exc:
        reason = reason_of(exc)
        if reason == "key values mismatch":
            raise BadCertificate("the private key is not that of the certificate") from None
        raise BadCertificate(f"certificate or private key cannot be read: {reason}") from None
    except OSError as exc:
        raise BadCertificate(f"certificate or private key cannot be read: {exc.strerror}") from None


def client_context(
    ca: str | None = None, *, verify: bool = True, protocols: Iterable[str] = (), authorities: str | None = None
) -> ssl.SSLContext:
    """It verifies the server's certificate and name, unless `verify` is False. `ca`: a file of authorities instead of
    the system's; `authorities`: its text, where it was read before. Raises BadCertificate for a text that is none."""
    if authorities is not None and not authorities.strip():  # OpenSSL would take the system's
        raise BadCertificate(f"{ca or 'the authorities'} cannot be used: it is empty")
    try:
        context = ssl.create_default_context(cafile=ca if authorities is None else None, cadata=authorities)
    except (ssl.SSLError, ValueError) as exc:
        raise BadCertificate(f"{ca or 'the authorities'} cannot be used: {reason_of(exc)}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= KERNEL_TLS
    context.options &= TELLS_CUT_ENDS
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if offered := list(protocols):
        context.set_alpn_protocols(offered)
    return context


def reason_of(exc: BaseException) -> str:
    """An error of TLS in words: OpenSSL's own reason, lower case, without its place in a source file."""
    verification = getattr(exc, "verify_message", "")
    if verification:
        return f"certificate not accepted: {verification}"
    reason = getattr(exc, "reason", None)
    if isinstance(reason, str):
        return reason.replace("_", " ").lower()
    strerror = getattr(exc, "strerror", None)
    text = strerror if isinstance(strerror, str) and strerror else str(exc)
    return text.partition(" (_ssl.c")[0].lower() or type(exc).__name__


def _read(fd: int) -> str:
    with open(f"/proc/self/fd/{fd}", "rb") as file:
        data = file.read()
    return data.decode("ascii", "replace")
