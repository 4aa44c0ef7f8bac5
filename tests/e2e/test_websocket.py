"""WebSockets over reloads of a real lbproxy with real backends: whole frames, one 1001, no hurry, nobody twice."""

import os
import re
import signal
import threading
from contextlib import ExitStack
from pathlib import Path

from support.serve import Serving, serving
from support.web import web
from support.ws import WebSocketEnd, dial, following

GOING_AWAY = (1001, "going away")


def longlived(drain: str, pool: str = "", *, size: int = 2, workers: int = 2) -> str:
    return web(
        f'bind = "fd"\n{pool}',
        command="$longlived",
        size=size,
        workers=workers,
        reload='min_ready = "0s"',
        more=f"[pool.web.drain]\n{drain}",
    )


def reloads(lb: Serving) -> int:
    return lb.log().count('"reload.finished"')


def test_forty_clients_see_whole_frames_and_one_1001_and_no_backend_is_stopped_with_work_in_hand(
    tmp_path: Path,
) -> None:
    """Half of them are pushed to every 5 ms; a request of 4 s begun before the reload ends on its old backend."""
    with serving(longlived('websocket = "2s"\ngoodbye = "5s"'), tmp_path) as lb, ExitStack() as stack:
        old = {backend["pid"] for backend in lb.backends()}
        answers = []
        slow = [threading.Thread(target=lambda: answers.append(lb.get("/slow?s=4"))) for _ in range(4)]
        for thread in slow:
            thread.start()
        pushed = [dial(lb.port, f"/ws?push=0.005&name=p{number}") for number in range(20)]
        quiet = [dial(lb.port, f"/ws?name=q{number}") for number in range(20)]
        stack.enter_context(following(*pushed, *quiet))
        for end in quiet:
            end.send("hello")
        lb.wait_until(lambda: all(end.heard.messages for end in pushed + quiet))
        lb.signal(signal.SIGUSR2)
        lb.wait_until(lambda: reloads(lb) == 1)
        for thread in slow:
            thread.join()
        stack.close()

        for end in pushed + quiet:
            heard = end.heard
            assert (heard.closes, heard.behind_close, heard.unfinished, heard.reset) == ([GOING_AWAY], [], False, False)
            assert heard.ended_at - heard.closed_at < 4, "TCP is closed after the echo, not at the end of the goodbye"
        log = lb.log()
        for number, end in enumerate(pushed):
            heard = end.heard.messages
            assert heard == [str(count + 1) for count in range(len(heard))]
            said = re.search(rf"websocket p{number} said (\d+)", log)
            assert said
            assert int(said[1]) == len(heard), "what the backend said before it was told is delivered"
        assert len(re.findall("got Close 1001 going away", log)) == 40
        assert [(answer.status, answer.json()["pid"] in old) for answer in answers] == [(200, True)] * 4
        assert re.findall(r"TERM with (\d+) in hand", log) == ["0", "0"]
        assert '"cut":0,"websockets_closed":40' in log


def test_thirty_closes_are_spread_over_their_window(tmp_path: Path) -> None:
    with serving(longlived('websocket = "2s"', size=1, workers=2), tmp_path) as lb:
        ends = [dial(lb.port) for _ in range(30)]
        with following(*ends):
            lb.api("POST", "/v1/reload", {})
        times = sorted(end.heard.closed_at for end in ends)
        assert [end.heard.closes for end in ends] == [[GOING_AWAY]] * 30
        span = times[-1] - times[0]
        assert 1.5 < span < 3
        for quarter in range(4):
            first, last = times[0] + quarter / 4 * span, times[0] + (quarter + 1) / 4 * span
            assert 3 <= sum(first <= time <= last for time in times) <= 13


def test_nobody_who_reconnects_at_once_is_closed_twice(tmp_path: Path) -> None:
    """Ten backends are replaced one by one: who is sent away from an old one must not meet another old one."""
    closes: dict[int, list[tuple[int, str]]] = {number: [] for number in range(25)}
    over = threading.Event()
    current: dict[int, WebSocketEnd] = {}

    def live(number: int) -> None:
        while not over.is_set():
            current[number] = end = dial(lb.port)
            heard = end.follow()
            closes[number] += heard.closes

    with serving(longlived('websocket = "200ms"', size=10), tmp_path) as lb:
        threads = [threading.Thread(target=live, args=(number,)) for number in closes]
        for thread in threads:
            thread.start()
        lb.wait_until(lambda: sum(sum(one["leases"].values()) for one in lb.backends()) == 25)
        answer = lb.api("POST", "/v1/reload", {})
        assert answer.status == 200
        over.set()
        assert {backend["generation"] for backend in lb.backends()} == {2}
        assert list(closes.values()) == [[GOING_AWAY]] * 25
        for end in list(current.values()):
            end.close(1000)
        for thread in threads:
            thread.join()


def test_a_websocket_outlives_the_reload_of_another_pool(tmp_path: Path) -> None:
    other = '[[listener]]\naddress = "127.0.0.1:$port2"\npool = "api"\n[pool.api]\ntargets = ["127.0.0.1:$port"]'
    config = longlived('websocket = "0s"', size=1).replace('name = "public"', 'pool = "web"') + other
    with serving(config, tmp_path, wait=False) as lb:
        lb.wait_ready()
        end = dial(lb.port)
        assert lb.cli("reload", "api").returncode == 0
        end.send("still here")
        assert end.message() == "still here"
        end.close(1000)
        assert end.follow().closes == [(1000, "")]


def test_a_backend_that_is_killed_ends_its_websockets_without_a_close(tmp_path: Path) -> None:
    with serving(longlived("", size=1), tmp_path) as lb:
        end = dial(lb.port, "/ws?push=0.005")
        end.message()
        os.kill(lb.backends()[0]["pid"], signal.SIGKILL)
        heard = end.follow()
        assert (heard.closes, heard.unfinished) == ([], False)


def test_a_stop_with_little_time_says_goodbye_all_the_same(tmp_path: Path) -> None:
    """Neither the wait for handshakes nor that for last requests comes before it."""
    text = longlived('websocket = "0s"\ngoodbye = "2s"', workers=1)
    with serving(text.replace("[proxy]\n", '[proxy]\nshutdown_timeout = "500ms"\n'), tmp_path) as lb:
        ends = [dial(lb.port, "/ws") for _ in range(3)]
        with following(*ends):
            lb.signal(signal.SIGTERM)
            assert lb.process is not None
            assert lb.process.wait(10) == 0
        assert [end.heard.closes for end in ends] == [[GOING_AWAY]] * 3
