"""Where something listens: a TCP address, the path of a unix socket, or a socket that the service manager passes."""

from dataclasses import dataclass, replace
from ipaddress import ip_address


@dataclass(frozen=True, slots=True)
class Address:
    """host:port, the path of a unix socket, or a passed socket. An empty host is every address."""

    host: str = ""
    port: int = 0
    path: str | None = None
    passed: str | None = None  # the name or the number of a socket (socket activation); listeners only
    secure: bool = False  # TLS is spoken there; targets only
    name: str | None = None  # the host name that `host` is an address of; targets only

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read "host:port", ":port", "[v6]:port", "unix:/path" or "fd:NAME". Raises ValueError with the reason."""
        if text.startswith("unix:"):
            path = text.removeprefix("unix:")
            if not path:
                raise ValueError("a unix address needs a path, as in 'unix:/run/app.sock'")
            if len(path.encode()) > 107:
                raise ValueError("the path of a unix socket has at most 107 bytes")
            return cls(path=path)
        if text.startswith("fd:"):
            passed = text.removeprefix("fd:")
            if not passed or not passed.isprintable() or set(passed) & set(": "):
                raise ValueError("a passed socket needs its name or number, as in 'fd:web' or 'fd:0'")
            return cls(passed=passed)
        host, colon, port = text.rpartition(":")
        if not colon or not port.isascii() or not port.isdigit():
            raise ValueError("expected host:port, :port, [v6]:port or unix:/path")
        if int(port[:9]) > 65535:
            raise ValueError("expected a port from 1 to 65535")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise ValueError("an IPv6 address stands in brackets, as in '[::1]:8080'")
        return cls(host=host, port=int(port))

    @property
    def is_local(self) -> bool:
        """Whether only this machine can connect to it."""
        if self.path is not None or self.host.lower() == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def has_name(self) -> bool:
        """Whether `host` is a name, which has to be looked up."""
        if self.path is not None or self.passed is not None or not self.host:
            return False
        try:
            ip_address(self.host)
        except ValueError:
            return True
        return False

    @property
    def written(self) -> str:
        """The address as the file has it: with the name instead of the address that was found for it."""
        return str(self if self.name is None else replace(self, host=self.name))

    @property
    def server_name(self) -> str:
        """The host as a client calls it: the name, where there is one."""
        return self.name or self.host

    @property
    def authority(self) -> str:
        """What the field Host says of it."""
        if self.path is not None:
            return "localhost"
        name = self.server_name
        return f"[{name}]:{self.port}" if ":" in name else f"{name}:{self.port}"

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        if self.passed is not None:
            return f"fd:{self.passed}"
        where = f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        return f"https://{where}" if self.secure else where
