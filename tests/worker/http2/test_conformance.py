"""RFC 9113 and 7541, case by case, over the whole stack of a worker; and h2spec itself, where there is one."""

import os
import subprocess
from pathlib import Path

import pytest
import trio
from support.conformance import CASES, Answered, Due, Gone, Reset, Sent
from support.peer import Peer
from support.proxy import OK, Proxy, proxy
from support.raw_http2 import REFUSED_STREAM, SETTINGS, RawHttp2, connect_raw, get, headers, settings
from support.serve import serving
from support.trio_test import trio_test

H2SPEC = os.environ.get("LBPROXY_H2SPEC")  # the program
AFTER = 1001
WAIT_S = 4.0


async def backend(peer: Peer) -> None:
    while True:
        request = await peer.request()
        if b"/wait" in request.start:
            await peer.wait_ended()
        await peer.send(OK)


@trio_test(timeout_s=60)
async def test_every_case_of_the_specification() -> None:
    async with proxy("h2", backend) as lb:
        wrong = [
            f"{name}: {problem}"
            for name, (sent, due) in CASES.items()
            if (problem := await trio.to_thread.run_sync(tried, lb, sent, due))
        ]
        assert not wrong, "\n".join(wrong)


def tried(lb: Proxy, sent: Sent, due: Due) -> str:
    """What is wrong; empty: nothing is."""
    client = connect_raw(lb.address.port)
    lb._clients.append(client)  # type: ignore[arg-type]
    for piece in sent:
        if isinstance(piece, int):
            client.verdict(piece)
        else:
            client.send(piece)
    try:
        found = seen(client, due)
    except TimeoutError:
        found = f"nothing more; until then {client.frames}"
    client.close()
    return "" if found == due else f"{found}, not {due}"


def seen(client: RawHttp2, due: Due) -> Due | str:
    if isinstance(due, Gone):
        code = client.wait_end(WAIT_S)
        return "closed without a word" if code is None else Gone(code)
    streams = due.streams if isinstance(due, Answered) else (due.stream,)
    verdicts = [client.verdict(stream, WAIT_S) for stream in streams]
    client.send(settings(window=65535), headers(AFTER, get()))
    if due != Reset(REFUSED_STREAM, 201) and client.verdict(AFTER, WAIT_S).status != 200 and client.goaway is None:
        return f"the connection does not go on: {verdicts}"
    if isinstance(due, Reset):
        return Reset(verdicts[0].reset, due.stream) if verdicts[0].reset is not None else str(verdicts[0])
    return due if all(one.status == 200 and one.body == b"hello" for one in verdicts) else str(verdicts)


@trio_test(timeout_s=10)
async def test_settings_are_acknowledged_and_a_window_of_1_gets_a_byte() -> None:
    async with proxy("h2", backend) as lb:

        def talk() -> None:
            client = connect_raw(lb.address.port)
            lb._clients.append(client)  # type: ignore[arg-type]
            client.send(settings(window=1), headers(1, get()))
            while not (sizes := [len(one.payload) for one in client.frames if one.kind == 0]):
                client.step()
            assert sizes == [1]
            assert client.wait_ping()
            assert [one.flags for one in client.frames if one.kind == SETTINGS] == [0, 1, 1]

        await trio.to_thread.run_sync(talk)


CONFIG = """
[[listener]]
address = "127.0.0.1:$port"
protocols = ["h2c"]
[pool.web]
command = "$origin --port {port}"
"""


@pytest.mark.skipif(H2SPEC is None, reason="LBPROXY_H2SPEC does not name the program")
def test_h2spec(tmp_path: Path) -> None:
    assert H2SPEC is not None
    with serving(CONFIG, tmp_path) as lb:
        command = [H2SPEC, "-h", "127.0.0.1", "-p", str(lb.port), "-o", "5"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
