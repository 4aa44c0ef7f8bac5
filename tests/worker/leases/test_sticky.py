"""The slots of a sticky pool: what a token names, and the line that a client gets."""

import pytest
from support.routing import view

from lbproxy.model import BackendView, PoolView
from lbproxy.settings import DrainSettings, PoolLimits, PoolTimeouts, StickySettings
from lbproxy.worker.leases.sticky import StickySlots

OLD, NEW, OTHER = (
    view(1, token="one"),
    view(1, generation=2, cell=3, token="one"),
    view(2, token="two"),
)


def slots(*backends: BackendView, sticky: StickySettings | None = None) -> StickySlots:
    values = ("least_conn", None, PoolTimeouts(), PoolLimits(), DrainSettings(), 2)
    return StickySlots(PoolView("web", 0, backends, 1, *values, sticky=sticky or StickySettings()))


def test_a_token_names_the_backends_of_its_slot_the_newest_first() -> None:
    made = slots(OLD, NEW, OTHER)
    assert made.named(b"one") == (NEW, OLD)
    assert made.named(b"two") == (OTHER,)


@pytest.mark.parametrize("token", [None, b"", b"on", b"one ", b"ONE", b'"one"', b"three", b"\xff"])
def test_anything_else_names_nothing(token: bytes | None) -> None:
    assert slots(OLD, OTHER).named(token) == ()


@pytest.mark.parametrize(
    ("sticky", "secure", "line"),
    [
        (StickySettings(), False, b"lbproxy=one; Path=/; HttpOnly; SameSite=Lax"),
        (StickySettings(), True, b"lbproxy=one; Path=/; HttpOnly; SameSite=Lax; Secure"),
        (StickySettings("sid", 3600.0), False, b"sid=one; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax"),
        (StickySettings(max_age_s=0.5), False, b"lbproxy=one; Path=/; Max-Age=1; HttpOnly; SameSite=Lax"),
        (StickySettings(same_site="strict"), False, b"lbproxy=one; Path=/; HttpOnly; SameSite=Strict"),
        (StickySettings(cookie="__Host-x"), False, b"__Host-x=one; Path=/; HttpOnly; SameSite=Lax; Secure"),
        (StickySettings(same_site="none"), False, b"lbproxy=one; Path=/; HttpOnly; SameSite=None; Secure"),
    ],
)
def test_the_line_says_all_that_the_file_says(sticky: StickySettings, secure: bool, line: bytes) -> None:
    made = slots(OLD, sticky=sticky)
    assert made.line(OLD, secure=secure) == b"\r\nSet-Cookie: " + line
    assert made.line(OLD, secure=secure) is made.line(OLD, secure=secure)
