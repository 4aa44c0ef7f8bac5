"""Downgrade smuggling: no request over HTTP/2 arrives at a backend, of either protocol, as another one, or as two."""

from pathlib import Path

from support.raw_http2 import PROTOCOL_ERROR, get, headers, raw_http2
from support.recorder import ANSWER, Recorder, Seen, recording
from support.serve import serving
from support.smuggling import PASSED, REFUSED, Passed

CONFIG = """
[proxy]
workers = 1
[[listener]]
address = "127.0.0.1:$port"
protocols = ["h2c"]
pool = "first"
[[listener]]
address = "127.0.0.1:$port2"
protocols = ["h2c"]
pool = "second"
[pool.first]
targets = ["127.0.0.1:{first}"]
upgrades = ["websocket"]
[pool.second]
targets = ["127.0.0.1:{second}"]
protocol = "h2c"
[log]
access = "off"
"""
AFTER = headers(3, get(b"/after"))


def test_what_is_malformed_reaches_no_backend_and_what_is_strange_reaches_it_as_it_is(tmp_path: Path) -> None:
    with recording("http/1.1") as first, recording("h2c") as second:
        with serving(CONFIG.format(first=first.port, second=second.port), tmp_path) as lb:
            wrong = [
                f"{backend.protocol}: {name}: {problem}"
                for port, backend in ((lb.port, first), (lb.ports["port2"], second))
                for cases, check in ((REFUSED, refused), (PASSED, passed))
                for name in cases
                if (problem := check(port, backend, cases[name]))  # type: ignore[operator,index]
            ]
            assert not wrong, "\n".join(wrong)
            assert "Traceback" not in lb.log()
        assert (first.broken, second.broken) == ([], [])


def refused(port: int, backend: Recorder, sent: bytes) -> str:
    """What is wrong; empty: nothing is."""
    with raw_http2(port) as client:
        client.send(sent)
        verdict = client.verdict(1)
        if verdict.closed:
            return f"the connection has ended: {verdict}"
        if verdict.reset != PROTOCOL_ERROR and not 400 <= verdict.status < 600:
            return f"not refused: {verdict}"
        if verdict.status == 502:
            return f"the backend did not like it: {verdict}"
        client.send(AFTER)
        assert client.verdict(3).body == ANSWER
    seen = [(one.method, one.target) for one in backend.take()]
    return "" if seen == [(b"GET", b"/after")] else f"arrived: {seen}"


def passed(port: int, backend: Recorder, case: Passed) -> str:
    with raw_http2(port) as client:
        client.send(case.sent)
        verdict = client.verdict(1)
        client.send(AFTER)
        assert client.verdict(3).body == ANSWER
    seen = backend.take()
    if [one.target for one in seen] != [case.target, b"/after"]:
        return f"answered {verdict}, arrived {seen}"
    one = seen[0]
    due = (case.method, case.authority, case.body, list(case.trailers))
    found = (one.method, one.authority, one.body, one.trailers)
    if found != due:
        return f"arrived {found}, not {due}"
    return "; ".join(
        f"{name!r}: {one.values(name)}"
        for name, values in case.fields.items()
        if without_host(one).get(name, one.values(name)) != values
    )


def without_host(seen: Seen) -> dict[bytes, list[bytes]]:
    """HTTP/2 has the host in :authority."""
    return {b"host": [seen.authority]}
