"""Checks of TLS keys against each other: where certificates come from, client certificates, protocols.

Works on the document like checks.py. Does not look into the files: certificates/ does.
"""

from collections.abc import Iterator
from typing import Any

from lbproxy.config.checks import Table, elements
from lbproxy.config.problems import Finding, Path

MOST_DOMAINS = 100  # of Let's Encrypt
_SOURCES = {"cert": "cert and key", "certs": "certs", "directory": "directory", "acme": "acme"}


def check(document: Table) -> Iterator[Finding]:
    for path, listener in elements(document, "listener"):
        yield from _tls((*path, "tls"), listener.get("tls"))
        yield from _protocols(path, listener)
    admin = document.get("admin")
    if isinstance(admin, dict):
        yield from _tls(("admin", "tls"), admin.get("tls"))


def _tls(path: Path, tls: Any) -> Iterator[Finding]:
    if not isinstance(tls, dict):
        return  # without TLS, or of a wrong shape
    for key, other in (("cert", "key"), ("key", "cert")):
        if key in tls and other not in tls:
            yield Finding(path, f"{key} needs {other} beside it", at_table=True, lacks=(other,))
    sources = [key for key in _SOURCES if key in tls or (key == "cert" and "key" in tls)]
    if not sources:
        message = 'needs cert and key, or certs, or directory, or acme: tls = { cert = "cert.pem", key = "key.pem" }'
        yield Finding(path, message, at_table=True, lacks=tuple(_SOURCES))
    for key in sources[1:]:
        first = sources[0] if sources[0] in tls else "key"
        message = f"cannot be given together with {_SOURCES[sources[0]]}"
        yield Finding((*path, key), message, see=(*path, first))
    if tls.get("certs") == []:
        yield Finding((*path, "certs"), "is empty")
    yield from _acme((*path, "acme"), tls.get("acme"))
    if "client_auth" in tls and "client_ca" not in tls:
        message = "needs client_ca: the file of the authorities whose certificates are good"
        yield Finding((*path, "client_auth"), message, lacks=("client_ca",))


def _acme(path: Path, acme: Any) -> Iterator[Finding]:
    domains = acme.get("domains") if isinstance(acme, dict) else None
    if not isinstance(domains, list):
        return
    if not domains:
        yield Finding((*path, "domains"), 'is empty (write domains = ["example.com"])')
    if len(domains) > MOST_DOMAINS:
        yield Finding((*path, "domains"), f"has {len(domains)} names; authorities take at most {MOST_DOMAINS}")
    written = [domain.lower() if isinstance(domain, str) else domain for domain in domains]
    for number, domain in enumerate(written):
        if domain in written[:number]:
            yield Finding((*path, "domains", number), f"{domain!r} is there twice")


def _protocols(path: Path, listener: Table) -> Iterator[Finding]:
    protocols = listener.get("protocols")
    if not isinstance(protocols, list):
        return
    at = (*path, "protocols")
    if listener.get("mode") == "tcp" and protocols != ["http/1.1"]:
        yield Finding(at, 'means something only with mode = "http"', see=(*path, "mode"))
    if not protocols:
        yield Finding(at, 'is empty (write ["http/1.1"])')
    for number, protocol in enumerate(protocols):
        if protocol in protocols[:number]:
            yield Finding((*at, number), f"'{protocol}' is there twice")
        elif protocol == "h2" and "tls" not in listener:
            yield Finding((*at, number), "'h2' needs tls (without it HTTP/2 is 'h2c')")
        elif protocol == "h2c" and "tls" in listener:
            yield Finding((*at, number), "'h2c' is HTTP/2 without TLS (with it HTTP/2 is 'h2')", see=(*path, "tls"))
