import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fake_control import FakeControl, Handler, fake_control, lines, refusal

from lbproxy.cli.client import ConnectionBroke, ControlClient, TimedOut
from lbproxy.cli.options import Fail


@pytest.fixture
def control(tmp_path: Path) -> Iterator[FakeControl]:
    with fake_control(tmp_path / "lb.sock") as control:
        yield control


def failure(client: ControlClient) -> tuple[int, str]:
    with pytest.raises(Fail) as caught:
        client.get("/v1/status")
    return caught.value.exit_code, caught.value.text


def test_an_answer_is_what_its_json_says(control: FakeControl) -> None:
    control.answers["GET /v1/status"] = {"version": 1}
    control.answers["POST /v1/stop"] = {"pid": 7}
    assert ControlClient(control.path).get("/v1/status") == {"version": 1}
    assert ControlClient(control.path).post("/v1/stop", {"now": True}) == {"pid": 7}
    assert control.asked[1] == ("POST", "/v1/stop", {"now": True})


def test_no_socket_means_not_running_and_the_path_is_named(tmp_path: Path) -> None:
    path = str(tmp_path / "nobody.sock")
    assert failure(ControlClient(path)) == (3, f"lbproxy: not running: nobody answers at {path}")
    assert failure(ControlClient(path + "/under"))[0] == 3


def test_a_stale_socket_means_not_running(tmp_path: Path) -> None:
    path = str(tmp_path / "stale.sock")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(path)
    assert failure(ControlClient(path))[0] == 3


def test_a_path_that_cannot_be_a_socket_is_said(tmp_path: Path) -> None:
    code, text = failure(ControlClient("/" + "x" * 200))
    assert code == 1
    assert "AF_UNIX path too long" in text
    (tmp_path / "file").write_text("")
    assert failure(ControlClient(str(tmp_path / "file")))[0] == 3


def test_a_refusal_has_the_exit_code_and_the_words_of_control(control: FakeControl) -> None:
    control.answers["GET /v1/status"] = refusal(409, "another reload is running", 8)
    assert failure(ControlClient(control.path)) == (8, "lbproxy: another reload is running")
    control.answers["GET /v1/status"] = refusal(422, "lb.toml:1:1: error: x\n1 error", 78)
    assert failure(ControlClient(control.path)) == (78, "lb.toml:1:1: error: x\n1 error")


def test_a_refusal_without_json_is_a_failure(control: FakeControl) -> None:
    control.answers["GET /v1/status"] = lambda handler: handler.send(500, "oh")
    assert failure(ControlClient(control.path)) == (
        1,
        "lbproxy: the control socket answered 500 Internal Server Error",
    )


def test_an_answer_that_breaks_off_is_a_failure(control: FakeControl) -> None:
    def broken(handler: Handler) -> None:
        handler.begin()
        handler.raw(b'{"version": ')

    control.answers["GET /v1/status"] = broken
    code, text = failure(ControlClient(control.path))
    assert code == 1
    assert text == f"lbproxy: the connection to {control.path} broke: it closed before the answer was complete"


def test_a_stream_comes_line_by_line_wherever_it_is_cut(control: FakeControl) -> None:
    def cut(handler: Handler) -> None:
        handler.begin()
        for piece in (b'{"a"', b': 1}\n{"a": 2}', b'\n\n{"a": 3}\n'):
            handler.raw(piece)
        handler.end()

    control.answers["POST /v1/reload"] = cut
    with ControlClient(control.path).stream("POST", "/v1/reload", {}) as stream:
        assert [values["a"] for values in stream] == [1, 2, 3]


def test_a_line_is_there_as_soon_as_it_was_sent(control: FakeControl) -> None:
    seen = threading.Event()

    def waits(handler: Handler) -> None:
        handler.begin()
        handler.line({"a": 1})
        assert seen.wait(10)
        handler.line({"a": 2})
        handler.end()

    control.answers["POST /v1/reload"] = waits
    with ControlClient(control.path).stream("POST", "/v1/reload", {}) as stream:
        values = iter(stream)
        assert next(values) == {"a": 1}
        seen.set()
        assert list(values) == [{"a": 2}]


def test_a_stream_that_passes_its_deadline_has_timed_out(control: FakeControl) -> None:
    over = threading.Event()

    def never_ends(handler: Handler) -> None:
        handler.begin()
        handler.line({"a": 1})
        over.wait(10)

    control.answers["POST /v1/reload"] = never_ends
    with ControlClient(control.path).stream("POST", "/v1/reload", {}) as stream:
        stream.deadline = time.monotonic() + 0.05
        with pytest.raises(TimedOut):
            list(stream)
    over.set()


@pytest.mark.parametrize("last", [b'{"a": 2', b"rubbish\n", b"[1]\n"])
def test_a_stream_that_breaks_in_a_line_is_known_as_broken(control: FakeControl, last: bytes) -> None:
    def breaks(handler: Handler) -> None:
        handler.begin()
        handler.line({"a": 1})
        handler.raw(last)
        handler.end()

    control.answers["POST /v1/reload"] = breaks
    with ControlClient(control.path).stream("POST", "/v1/reload", {}) as stream, pytest.raises(ConnectionBroke):
        list(stream)


def test_a_stream_without_its_last_chunk_is_known_as_broken(control: FakeControl) -> None:
    def breaks(handler: Handler) -> None:
        handler.begin()
        handler.line({"a": 1})

    control.answers["POST /v1/reload"] = breaks
    with (
        ControlClient(control.path).stream("POST", "/v1/reload", {}) as stream,
        pytest.raises(ConnectionBroke, match="it closed before the answer was complete"),
    ):
        list(stream)


def test_an_empty_stream_has_no_lines(control: FakeControl) -> None:
    control.answers["GET /v1/logs"] = lines()
    with ControlClient(control.path).stream("GET", "/v1/logs?n=1") as stream:
        assert list(stream) == []
