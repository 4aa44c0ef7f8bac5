"""The client of the control API: HTTP/1.1 and JSON over the control socket.

Knows the transport and its errors, as exit codes and words. Does not know the requests. Standard library only.
"""

import contextlib
import http.client
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from lbproxy.cli.options import Fail, Options
from lbproxy.config.control_path import private_place, why_not_private

FAILED = 1
NOT_RUNNING = 3
ANSWER_TIMEOUT_S = 10.0


class TimedOut(Exception):
    """The deadline passed while the stream goes on."""


class ConnectionBroke(Exception):
    """The stream ended before its end."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("lbproxy")
        self.path = path

    def connect(self) -> None:
        sock = socket.socket(socket.AF_UNIX)
        try:
            # Python's timeout makes a full queue an error at once; the kernel's waits for a place in it.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(ANSWER_TIMEOUT_S), 0))
            sock.connect(self.path)
            sock.settimeout(ANSWER_TIMEOUT_S)
        except BaseException:
            sock.close()
            raise
        self.sock = sock


class ControlClient:
    """One question, one connection. Every failure is a Fail with its exit code and a line that names the socket.

    The first of `paths` that answers is asked. If none does, the only one of `others` that answers is.
    """

    def __init__(self, *paths: str, others: Sequence[str] = ()) -> None:
        self._paths = paths
        self._others = others
        self.path = paths[0]  # of the one that is asked
        self._denied: Fail | None = None

    @classmethod
    def of(cls, options: Options) -> "ControlClient":
        return cls(*options.control_paths, others=options.other_sockets)

    def get(self, target: str) -> Any:
        return self._whole(*self._ask("GET", target, None))

    def post(self, target: str, values: dict[str, Any]) -> Any:
        return self._whole(*self._ask("POST", target, values))

    def stream(self, method: str, target: str, values: dict[str, Any] | None = None) -> "Stream":
        """An answer that comes line by line for as long as something happens."""
        return Stream(*self._ask(method, target, values), lambda: ControlClient(self.path).get("/livez"))

    def _ask(
        self, method: str, target: str, values: dict[str, Any] | None
    ) -> tuple[http.client.HTTPResponse, socket.socket]:
        connection = self._connect()
        sock: socket.socket = connection.sock  # http.client forgets it with the head of an answer that closes
        try:
            body = None if values is None else json.dumps(values).encode()
            headers = {"Content-Type": "application/json"} if body is not None else {}
            connection.request(method, target, body, {**headers, "Connection": "close"})
            response = connection.getresponse()
            if not response.chunked and response.length is None:  # control always says where its answer ends
                raise http.client.IncompleteRead(b"")
            if response.status >= 400:
                raise _refusal(response)
        except (OSError, http.client.HTTPException) as exc:
            sock.close()
            raise self._broke(exc) from None
        except BaseException:
            sock.close()
            raise
        return response, sock

    def _connect(self) -> _UnixConnection:
        for path in self._paths:
            connection = self._try(path)
            if connection is not None:
                return connection
        answering = [connection for path in self._others if (connection := self._try(path)) is not None]
        if len(answering) == 1:
            return answering[0]
        for connection in answering:
            connection.close()
        if answering:
            which = ", ".join(connection.path for connection in answering)
            raise Fail(NOT_RUNNING, f"lbproxy: several run here, name one with -c or --control: {which}")
        if self._denied is not None:
            raise self._denied
        looked = dict.fromkeys((*self._paths, *self._others))
        raise Fail(NOT_RUNNING, f"lbproxy: not running: nobody answers at {' or '.join(looked)}")

    def _try(self, path: str) -> _UnixConnection | None:
        """None: no program listens there."""
        directory = os.path.dirname(path)
        why = why_not_private(directory) if directory == private_place() else None
        if why is not None:
            raise Fail(FAILED, f"lbproxy: cannot use the control socket {path}: {directory}: {why}")
        connection = _UnixConnection(path)
        self.path = path
        try:
            connection.connect()
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            self.path = self._paths[0]
            return None
        except BlockingIOError:
            raise self._broke(TimeoutError()) from None
        except OSError as exc:
            fail = Fail(FAILED, f"lbproxy: cannot use the control socket {path}: {_reason(exc)}")
            if not isinstance(exc, PermissionError):
                raise fail from None
            self._denied = self._denied or fail  # another user's; ours may be somewhere else
            self.path = self._paths[0]
            return None
        return connection

    def _whole(self, response: http.client.HTTPResponse, sock: socket.socket) -> Any:
        try:
            with sock, response:
                return _values(response.read())
        except ConnectionBroke as exc:
            raise self._broke(exc) from None
        except (OSError, http.client.HTTPException, ValueError) as exc:
            raise self._broke(exc) from None

    def _broke(self, exc: Exception) -> Fail:
        if isinstance(exc, TimeoutError):
            return Fail(FAILED, f"lbproxy: no answer within {ANSWER_TIMEOUT_S:g}s from {self.path}")
        return Fail(FAILED, f"lbproxy: the connection to {self.path} broke: {_reason(exc)}")


class Stream:
    """JSON lines as they come. Iteration raises TimedOut at `deadline` (monotonic; None: never) and ConnectionBroke.

    `check` raises Fail when control does not answer. It is called while the stream is silent: a reload may be silent
    for minutes, and a control that hangs would be silent for ever.
    """

    def __init__(self, response: http.client.HTTPResponse, sock: socket.socket, check: Callable[[], object]) -> None:
        self._response = response
        self._sock = sock
        self._check = check
        self.deadline: float | None = None
        self._heard_at = time.monotonic()
        self._fail: Fail | None = None
        self._closed = threading.Event()

    def __enter__(self) -> "Stream":
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._closed.set()
        self._response.close()
        self._sock.close()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        rest = b""
        while piece := self._read():
            self._heard_at = time.monotonic()
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                if line.strip():
                    yield _values(line)
        if rest.strip():
            raise ConnectionBroke("it ended in the middle of a line")

    def _read(self) -> bytes:
        try:
            self._sock.settimeout(self._left_s())
            piece = self._response.read1(65536)
        except TimeoutError:
            raise TimedOut from None
        except (OSError, ValueError, http.client.HTTPException) as exc:
            raise self._fail or ConnectionBroke(_reason(exc)) from None
        if not piece and self._fail is not None:
            raise self._fail
        return piece

    def _watch(self) -> None:
        """In a thread of its own: a read that timed out could not be gone on with."""
        while not self._closed.wait(ANSWER_TIMEOUT_S):
            if time.monotonic() - self._heard_at >= ANSWER_TIMEOUT_S:
                try:
                    self._check()
                except Fail as exc:
                    self._fail = exc
                    with contextlib.suppress(OSError):
                        self._sock.shutdown(socket.SHUT_RDWR)
                    return

    def _left_s(self) -> float | None:
        if self.deadline is None:
            return None
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


def _values(line: bytes) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise ConnectionBroke(f"not a JSON object: {line[:100]!r}")
    return values


def _refusal(response: http.client.HTTPResponse) -> Fail:
    """{"error": ..., "exit_code": ...}; a report of many lines speaks for itself."""
    with response:
        body = response.read()
    try:
        values = json.loads(body)
        text, exit_code = str(values["error"]), int(values.get("exit_code", FAILED))
    except (ValueError, KeyError, TypeError):
        text, exit_code = f"the control socket answered {response.status} {response.reason}", FAILED
    return Fail(exit_code, text if "\n" in text else f"lbproxy: {text}")


def _reason(exc: Exception) -> str:
    if isinstance(exc, http.client.IncompleteRead | http.client.RemoteDisconnected):
        return "it closed before the answer was complete"
    return (exc.strerror if isinstance(exc, OSError) else None) or str(exc) or type(exc).__name__
