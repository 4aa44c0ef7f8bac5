"""How the backends of https targets are verified: the context of a pool, and what a failed handshake is called.

Knows settings and contexts. Opens no connection.
"""

import ssl
from functools import lru_cache
from typing import TypeAlias

from lbproxy.settings import TargetTls
from lbproxy.tls.contexts import client_context

Context: TypeAlias = ssl.SSLContext
Session: TypeAlias = ssl.SSLSession

KEPT = 64  # contexts; one with the system's authorities takes 20 ms to make


@lru_cache(KEPT)
def target_context(tls: TargetTls, protocol: str = "") -> ssl.SSLContext:
    """`protocol`: the one that ALPN asks for. Raises BadCertificate. The system's authorities are read once."""
    context = client_context(tls.ca, verify=tls.verify, authorities=tls.authorities)
    if protocol:
        context.set_alpn_protocols([protocol])
    return context


def token_of(reason: str) -> str:
    """The error type (RFC 9209, 2.3) of a failed handshake; `reason` is that of HandshakeFailed."""
    if reason.startswith("certificate not accepted"):
        return "tls_certificate_error"
    return "tls_alert_received" if " alert " in f" {reason} " else "tls_protocol_error"
