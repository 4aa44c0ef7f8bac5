"""gRPC clients on grpcio's threads: calls of raw bytes, and streams that number their messages and check the echo.

with channel(lb.port) as api:
    unary(api)(b"hello")
streams = Streams(lb.port, 50); streams.start(); ...; streams.stop(); streams.told, streams.finished, streams.wrong
"""

import contextlib
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import grpc

sys.path.append(str(Path(__file__).parent / "apps"))
from grpc_words import CHAT, LONGEST_BYTES, UNARY, path_of

PATIENCE_S = 20.0
OPTIONS = (
    ("grpc.max_receive_message_length", LONGEST_BYTES),
    ("grpc.max_send_message_length", LONGEST_BYTES),
    ("grpc.use_local_subchannel_pool", 1),  # a channel has a connection of its own
    ("grpc.enable_retries", 0),  # else grpcio hides an UNAVAILABLE by a second try
)


def channel(port: int, *, ca: bytes | None = None, host: str = "127.0.0.1", options: Any = ()) -> grpc.Channel:
    """`ca`: TLS, with ALPN; prior knowledge without."""
    target = f"{host}:{port}"
    if ca is None:
        return grpc.insecure_channel(target, options=(*OPTIONS, *options))
    return grpc.secure_channel(target, grpc.ssl_channel_credentials(ca), options=(*OPTIONS, *options))


def unary(api: grpc.Channel, method: str = UNARY) -> Any:
    return api.unary_unary(path_of(method))


@dataclass(slots=True)
class Ended:
    """How one stream ended."""

    sent: int
    got: list[int]
    code: grpc.StatusCode
    details: str
    pushback_ms: int | None
    at: float

    @property
    def is_told(self) -> bool:
        return self.code is grpc.StatusCode.UNAVAILABLE and self.details.startswith("going away")

    @property
    def is_whole(self) -> bool:
        """Every message came back once, in its order."""
        return self.code is grpc.StatusCode.OK and self.got == list(range(1, self.sent + 1))

    @property
    def is_prefix(self) -> bool:
        return self.got == list(range(1, len(self.got) + 1)) and len(self.got) <= self.sent


def chat(api: grpc.Channel, most: int | None, pause_s: float, over: threading.Event) -> Ended:
    """Send numbered messages, one when the one before has come back, and end after `most`, or when `over` is set."""
    outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    call = api.stream_stream(path_of(CHAT))(iter(outgoing.get, None))
    sent, got = 1, []
    outgoing.put(b"1")
    try:
        for message in call:
            got.append(int(message))
            if over.wait(pause_s) or sent == most or not call.is_active():
                outgoing.put(None)
                continue
            sent += 1
            outgoing.put(b"%d" % sent)
    except grpc.RpcError:
        outgoing.put(None)
    trailing = dict(call.trailing_metadata() or ())
    pushback = trailing.get("grpc-retry-pushback-ms")
    return Ended(sent, got, call.code(), call.details(), None if pushback is None else int(pushback), monotonic())


@dataclass
class Streams:
    """Clients that stay: each opens one stream after the other, every second one without an end of its own."""

    port: int
    count: int
    pause_s: float = 0.02
    finite: tuple[int, ...] = (20, 50, 100)
    ca: bytes | None = None
    ended: list[Ended] = field(default_factory=list)
    trouble: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        for number in range(self.count):
            self.threads.append(threading.Thread(target=self._client, args=(number,), daemon=True))
            self.threads[-1].start()

    def stop(self) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join(PATIENCE_S)
        self.trouble += ["a client did not end" for thread in self.threads if thread.is_alive()]

    def _client(self, number: int) -> None:
        try:
            with channel(self.port, ca=self.ca) as api:
                turn = number
                while not self.over.is_set():
                    most = self.finite[turn % len(self.finite)] if turn % 2 else None
                    self.ended.append(chat(api, most, self.pause_s, self.over))
                    turn += 1
        except Exception as exc:
            self.trouble.append(f"client {number}: {exc!r}")

    @property
    def told(self) -> list[Ended]:
        return [one for one in self.ended if one.is_told]

    @property
    def finished(self) -> list[Ended]:
        return [one for one in self.ended if one.code is grpc.StatusCode.OK]

    @property
    def wrong(self) -> list[Ended]:
        """Neither whole, nor told goodbye behind messages that are all there, once, in their order."""
        return [one for one in self.ended if not one.is_whole and not (one.is_told and one.is_prefix)]


@contextlib.contextmanager
def calling(port: int, *, ca: bytes | None = None, pause_s: float = 0.005) -> Iterator[list[str]]:
    """Unary calls, one after the other, for as long as the block lasts; what is not an answer is in the list."""
    wrong: list[str] = []
    over = threading.Event()

    def call() -> None:
        with channel(port, ca=ca) as api:
            number = 0
            while not over.wait(pause_s):
                number += 1
                try:
                    if unary(api)(b"%d" % number, timeout=PATIENCE_S) != b"%d" % number:
                        wrong.append(f"call {number}: another answer")
                except grpc.RpcError as exc:
                    wrong.append(f"call {number}: {exc.code()} {exc.details()}")

    thread = threading.Thread(target=call)
    thread.start()
    try:
        yield wrong
    finally:
        over.set()
        thread.join(PATIENCE_S)


def failure(call: Callable[[], Any]) -> grpc.RpcError:
    try:
        call()
    except grpc.RpcError as exc:
        return exc
    raise AssertionError("the call has not failed")
