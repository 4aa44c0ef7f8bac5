"""http and https URLs, as far as one request to one server needs them (RFC 3986). Knows no socket."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from lbproxy.address import Address

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class HttpUrl:
    is_secure: bool
    address: Address
    host: str  # the Host field
    target: str

    @classmethod
    def parse(cls, text: str) -> "HttpUrl":
        """Raises ValueError with the reason, which does not quote the URL: it may hold a secret."""
        if not text.isascii() or not text.isprintable() or " " in text:
            raise ValueError("a URL has visible ASCII characters only")
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError as exc:
            raise ValueError(f"not a URL: {str(exc).partition(':')[0].lower()}") from None
        if parts.scheme not in _PORTS:
            raise ValueError("expected a URL that begins with http:// or https://")
        if not parts.hostname:
            raise ValueError("the URL names no host")
        if parts.username is not None or parts.password is not None:
            raise ValueError("a URL with a user name is not supported")
        if parts.fragment:
            raise ValueError("a URL with a fragment ('#') means nothing to a server")
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        address = Address(parts.hostname, _PORTS[parts.scheme] if port is None else port)
        return cls(parts.scheme == "https", address, parts.netloc, target)
