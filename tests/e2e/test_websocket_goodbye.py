"""The WebSocket goodbye, byte by byte (DESIGN.md 5): the test is the client and the backend of a real lbproxy."""

import signal
from pathlib import Path

import pytest
from support.swap import swapping
from support.ws import BINARY, CLOSE, CONTINUATION, PING, TEXT, close_payload, following, frame

GOING_AWAY = (1001, "going away")
AT_ONCE = 'websocket = "0s"\ngoodbye = "2s"'
BIG = bytes(range(256)) * 1200  # 300 KB


def test_the_last_words_of_the_backend_arrive_and_1001_replaces_its_code(tmp_path: Path) -> None:
    with swapping(tmp_path, AT_ONCE) as stage:
        client = stage.dial()
        backend = stage.backend.websocket()
        with stage.reload() as verdict:
            assert backend.follow_to_close().closes == [GOING_AWAY]
            backend.send("my last")
            backend.send("words")
            backend.close(4000, "bye from the backend")
            heard = client.follow()
            assert (heard.messages, heard.closes, heard.behind_close) == (["my last", "words"], [GOING_AWAY], [])
            assert backend.follow(answer=False).behind_close == []
        assert (verdict["cut"], verdict["websockets_closed"]) == (0, 1)


def test_a_backend_that_ignores_its_close_does_not_keep_the_client_from_its_own(tmp_path: Path) -> None:
    with swapping(tmp_path, 'websocket = "0s"\ngoodbye = "400ms"') as stage:
        client = stage.dial()
        backend = stage.backend.websocket()
        with stage.reload() as verdict:
            assert backend.follow_to_close().closes == [GOING_AWAY]
            assert client.follow().closes == [GOING_AWAY]
        assert verdict["websockets_closed"] == 1


def test_a_client_that_never_echoes_holds_nothing_up(tmp_path: Path) -> None:
    with swapping(tmp_path, 'websocket = "0s"\ngoodbye = "400ms"') as stage:
        client = stage.dial()
        backend = stage.backend.websocket()
        with stage.reload() as verdict, following(backend):
            heard = client.follow(answer=False)
        assert (heard.closes, heard.behind_close, heard.reset) == ([GOING_AWAY], [], False)
        assert 0.2 < heard.ended_at - heard.closed_at < 3
        assert verdict["duration_s"] < 4


def test_tcp_is_closed_right_after_the_echo(tmp_path: Path) -> None:
    with swapping(tmp_path, 'websocket = "0s"\ngoodbye = "8s"') as stage:
        client = stage.dial()
        backend = stage.backend.websocket()
        with stage.reload() as verdict:
            backend.follow_to_close()
            backend.close(1001)
            heard = client.follow()
        assert heard.ended_at - heard.closed_at < 2
        assert verdict["duration_s"] < 4


def test_a_close_of_the_clients_own_stays_1000(tmp_path: Path) -> None:
    with swapping(tmp_path, AT_ONCE) as stage:
        client = stage.dial()
        backend = stage.backend.websocket()
        client.close(1000, "done")
        assert backend.follow_to_close().closes == [(1000, "done")]
        with stage.reload() as verdict:
            backend.send("one more")
            backend.close(1000, "so long")
            heard = client.follow(answer=False)
            assert (heard.messages, heard.closes, heard.behind_close) == (["one more"], [(1000, "so long")], [])
            client.sock.close()
            assert backend.follow(answer=False).behind_close == []
            backend.sock.close()
        assert verdict["websockets_closed"] == 0


def test_a_close_of_the_backends_own_stays_as_it_is(tmp_path: Path) -> None:
    with swapping(tmp_path, AT_ONCE) as stage:
        client = stage.dial()
        backend = stage.backend.websocket()
        backend.close(4001, "you are banned")
        assert client.follow_to_close().closes == [(4001, "you are banned")]
        with stage.reload() as verdict:
            client.close(4001)
            assert backend.follow_to_close().closes == [(4001, "")]
            backend.sock.close()
            assert client.follow(answer=False).behind_close == []
        assert verdict["websockets_closed"] == 0


def test_a_message_in_hand_is_finished_within_the_window(tmp_path: Path) -> None:
    with swapping(tmp_path, 'websocket = "1500ms"\ngoodbye = "100ms"') as stage:
        client = stage.dial()
        backend = stage.backend.websocket()
        backend.send_frame(TEXT, b"begun ", fin=False)
        with stage.reload() as verdict:
            backend.follow_to_close()
            backend.send_frame(PING, b"between")
            backend.send_frame(CONTINUATION, b"and ended")
            heard = client.follow()
            assert (heard.messages, heard.pings) == (["begun and ended"], [b"between"])
            assert (heard.closes, heard.unfinished) == ([GOING_AWAY], False)
        assert verdict["cut"] == 0


def test_a_message_that_goes_on_too_long_is_interrupted_between_two_frames(tmp_path: Path) -> None:
    with swapping(tmp_path, 'websocket = "0s"\ngoodbye = "600ms"') as stage:
        client = stage.dial()
        backend = stage.backend.websocket()
        backend.send_frame(TEXT, b"begun", fin=False)
        with stage.reload() as verdict:
            heard = client.follow()
            assert (heard.messages, heard.closes, heard.unfinished) == ([], [GOING_AWAY], True)
        assert verdict["cut"] == 0


def test_a_frame_in_hand_is_never_broken_by_the_close(tmp_path: Path) -> None:
    with swapping(tmp_path, AT_ONCE) as stage:
        client = stage.dial()
        backend = stage.backend.websocket()
        whole = frame(BINARY, BIG)
        backend.send_raw(whole[:100_000])
        with stage.reload() as verdict:
            backend.follow_to_close()
            backend.send_raw(whole[100_000:] + frame(CLOSE, close_payload(1001)))
            heard = client.follow()
            assert (heard.messages, heard.closes, heard.behind_close) == ([BIG], [GOING_AWAY], [])
        assert verdict["cut"] == 0


def test_a_frame_of_the_client_in_hand_is_whole_before_the_backend_is_told(tmp_path: Path) -> None:
    with swapping(tmp_path, AT_ONCE) as stage:
        client = stage.dial()
        backend = stage.backend.websocket()
        whole = frame(BINARY, BIG, mask=b"abcd")
        client.send_raw(whole[:-1])
        with stage.reload():
            client.send_raw(whole[-1:])
            with following(client):
                heard = backend.follow()
            assert (heard.messages, heard.closes, heard.behind_close) == ([BIG], [GOING_AWAY], [])
            assert client.heard.closes == [GOING_AWAY]


def test_a_frame_that_never_ends_is_cut_without_a_close(tmp_path: Path) -> None:
    with swapping(tmp_path, 'websocket = "200ms"\ngoodbye = "400ms"') as stage:
        client = stage.dial()
        backend = stage.backend.websocket()
        backend.send_frame(BINARY, b"only this much", length=1 << 40)
        with stage.reload() as verdict:
            heard = client.follow()
            assert (heard.messages, heard.closes) == ([], [])
        assert verdict["cut"] == 1
        assert 0.5 < verdict["duration_s"] < 4


def test_code_and_reason_are_configured(tmp_path: Path) -> None:
    words = 'close_code = 1012\nclose_reason = "back in a moment, ünlü"'
    with swapping(tmp_path, f"{AT_ONCE}\n{words}") as stage:
        client = stage.dial()
        backend = stage.backend.websocket()
        with stage.reload():
            with following(backend):
                assert client.follow().closes == [(1012, "back in a moment, ünlü")]
            assert backend.heard.closes == [(1012, "back in a moment, ünlü")]


@pytest.mark.parametrize("how", ["TERM", "lbproxy stop"])
def test_a_proxy_that_stops_says_goodbye_too(tmp_path: Path, how: str) -> None:
    with swapping(tmp_path, AT_ONCE) as stage:
        clients = [stage.dial() for _ in range(3)]
        backends = [stage.backend.websocket() for _ in clients]
        clients[0].send("still here?")
        assert backends[0].message() == "still here?"
        if how == "TERM":
            stage.lb.signal(signal.SIGTERM)
        else:
            assert stage.lb.api("POST", "/v1/stop", {}).status == 200
        for backend in backends:
            backend.follow_to_close()
            backend.send("bye")
            backend.close(1000)
        for client in clients:
            heard = client.follow()
            assert (heard.messages, heard.closes, heard.behind_close) == (["bye"], [GOING_AWAY], [])
        assert stage.lb.stop() == 0


def test_bytes_in_one_packet_with_the_upgrade_and_with_the_101_arrive_first(tmp_path: Path) -> None:
    with swapping(tmp_path) as stage:
        stage.backend.behind = frame(TEXT, b"hello") + frame(BINARY, BIG)
        behind = frame(TEXT, b"too early", mask=b"mask") + frame(BINARY, BIG[:40_000], mask=b"mask")
        client = stage.dial("/ws", behind=behind)
        backend = stage.backend.websocket()
        assert (client.message(), client.message()) == ("hello", BIG)
        assert (backend.message(), backend.message()) == ("too early", BIG[:40_000])
        client.close(1000)
        with following(client):
            assert backend.follow().closes == [(1000, "")]
        assert client.heard.closes == [(1000, "")]


def test_a_frame_of_300_kb_and_pings_pass_both_ways(tmp_path: Path) -> None:
    with swapping(tmp_path) as stage:
        client = stage.dial()
        backend = stage.backend.websocket()
        client.send(BIG)
        assert backend.message() == BIG
        backend.send(BIG)
        assert client.message() == BIG
        client.send_frame(PING, b"are you there")
        client.send("x")
        assert backend.message() == "x"
        backend.send("y")
        assert client.message() == "y"
        assert (backend.heard.pings, client.heard.pongs) == ([b"are you there"], [b"are you there"])
        client.close(1000)
        with following(client, backend):
            pass
