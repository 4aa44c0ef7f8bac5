"""Which route takes a request: by its host, then by the longest beginning of its path (CONTRACT.md 2, [[route]]).
Which one takes a TLS connection that is passed on: by the host alone.

Plain functions over the routes of a table. Knows no pool.
"""

from collections.abc import Mapping, Sequence

from lbproxy.settings import ListenerSettings, RouteSettings

ACME_CHALLENGES = b"/.well-known/acme-challenge/"  # RFC 8555, 8.3


def answers_itself(listener: ListenerSettings, target: bytes, challenges: Mapping[bytes, bytes]) -> bool:
    """True where no pool is asked: an ACME challenge of ours or from a directory, or a redirect of everything else."""
    if target.startswith(ACME_CHALLENGES):
        ours = listener.tls is None and token_in(target) in challenges
        return ours or listener.acme_challenges is not None
    return listener.redirect is not None


def token_in(target: bytes) -> bytes:
    """The token that a target below ACME_CHALLENGES asks for."""
    return target.removeprefix(ACME_CHALLENGES).partition(b"?")[0]


def may_answer_itself(listener: ListenerSettings, challenges: Mapping[bytes, bytes]) -> bool:
    """Whether there is any target for which `answers_itself` is true."""
    asked = bool(challenges) and listener.tls is None and listener.mode == "http"
    return asked or listener.redirect is not None or listener.acme_challenges is not None


def best_route(routes: Sequence[RouteSettings], host: bytes, target: bytes) -> RouteSettings | None:
    """None when no route fits. `host`: the value of the Host field."""
    best: RouteSettings | None = None
    name = host_name(host)
    path = target.partition(b"?")[0].decode("latin-1")
    for route in routes:
        fits = (route.host is None or route.host == name) and _is_under(path, route.path)
        if fits and (best is None or _rank(route) > _rank(best)):
            best = route
    return best


def route_by_name(routes: Sequence[RouteSettings], name: str) -> RouteSettings | None:
    """The route of a connection whose ClientHello asks for this host. Paths are not seen: a route with one is passed
    over."""
    return next((route for route in routes if route.host == name and route.path == "/"), None)


def host_name(host: bytes) -> str:
    """A Host field without its port and the dot of the root, in lower case."""
    if host.startswith(b"["):
        return host.partition(b"]")[0].decode("latin-1").lower() + "]"
    return host.partition(b":")[0].removesuffix(b".").decode("latin-1").lower()


def _is_under(path: str, prefix: str) -> bool:
    return path.startswith(prefix) and (prefix.endswith("/") or len(path) == len(prefix) or path[len(prefix)] == "/")


def _rank(route: RouteSettings) -> tuple[bool, int]:
    return (route.host is not None, len(route.path))
