"""The slots of one sticky pool: which backends a cookie's token names, and the line that gives a client its cookie.

Made anew with every table. A token names a slot; during a reload it may have backends of two generations. Control makes
the tokens (control/sticky.py): here they are only looked up, and a token that is not in the table names nothing.
"""

from math import ceil

from lbproxy.model import BackendView, PoolView

_SAME_SITE = {"lax": "Lax", "strict": "Strict", "none": "None"}


class StickySlots:
    __slots__ = ("_end", "_lines", "_name", "_secure", "_views")

    def __init__(self, pool: PoolView) -> None:
        sticky = pool.sticky
        assert sticky is not None
        self._views: dict[bytes, tuple[BackendView, ...]] = {}  # the newest generation first
        for view in sorted(pool.backends, key=lambda view: -view.id.generation):
            token = view.token.encode()
            self._views[token] = (*self._views.get(token, ()), view)
        self._name = sticky.cookie
        max_age = f"; Max-Age={ceil(sticky.max_age_s)}" if sticky.max_age_s else ""
        self._end = f"; Path=/{max_age}; HttpOnly; SameSite={_SAME_SITE[sticky.same_site]}"
        has_prefix = sticky.cookie.lower().startswith(("__host-", "__secure-"))
        self._secure = sticky.same_site == "none" or has_prefix  # browsers drop such a cookie if it is not
        self._lines: dict[tuple[str, bool], bytes] = {}

    def named(self, token: bytes | None) -> tuple[BackendView, ...]:
        return self._views.get(token, ()) if token is not None else ()

    def line(self, view: BackendView, *, secure: bool) -> bytes:
        """The Set-Cookie field for a client of this backend, behind a CRLF."""
        key = (view.token, secure)
        line = self._lines.get(key)
        if line is None:
            end = self._end + ("; Secure" if secure or self._secure else "")
            line = self._lines[key] = f"\r\nSet-Cookie: {self._name}={view.token}{end}".encode()
        return line
