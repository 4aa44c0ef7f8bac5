from typing import Any

import pytest

from lbproxy.cli.top_view import COLUMNS, TopView, mebibytes, milliseconds, rate

BACKEND: dict[str, Any] = {
    "generation": 7,
    "state": "ready",
    "uptime_s": 9.1,
    "restarts": 0,
    "leases": {"request": 1, "websocket": 2},
    "requests_total": 100,
}


def document(*backends: dict[str, Any], uptime_s: float = 10.0, **pool: Any) -> dict[str, Any]:
    rows = [{**BACKEND, "id": f"web.{slot}", **backend} for slot, backend in enumerate(backends, 1)]
    ready = sum(row["state"] == "ready" for row in rows)
    facts = {"generation": 7, "size": len(rows), "ready": ready, "backends": rows, **pool}
    return {
        "name": "edge-1",
        "uptime_s": uptime_s,
        "workers": [{"state": "serving", "connections": 5}],
        "pools": {"web": facts},
    }


def shown(view: TopView, width: int = 140, height: int = 20) -> list[str]:
    lines = view.draw(width, height).plain.split("\n")
    assert len(lines) == height
    assert max(map(len, lines)) <= width
    return [line.rstrip() for line in lines]


def names(view: TopView) -> list[str]:
    return [line.split()[0] for line in shown(view) if "@" in line]


def column(name: str) -> int:
    return [one.name for one in COLUMNS].index(name)


def test_what_the_document_does_not_say_is_a_dash() -> None:
    view = TopView()
    view.learn(document({}))
    lines = shown(view)
    assert lines[0] == "edge-1  up 10.0s  1 worker  5 connections"
    assert lines[1] == "web  generation 7  1/1 ready  \u2013 requests/s  p50 \u2013  p99 \u2013  5xx \u2013"
    assert lines[4].split() == ["web.1@7", "ready", *"\u2013" * 3, "1", "0", "0", "2", "0", "0", "9.1s", "100"]


def test_rates_percentiles_and_usage_are_shown() -> None:
    view = TopView()
    usage = {"cpu": 0.25, "resident_memory_bytes": 50 * 2**20}
    view.learn(document({"requests_total": 100, **usage}, requests_per_s=250.4, p50_s=0.0025, p99_s=1.5))
    view.learn(document({"requests_total": 150, **usage}, uptime_s=12.0, requests_per_s=250.4, p50_s=0.0025, p99_s=1.5))
    lines = shown(view)
    assert "250 requests/s  p50 2.5 ms  p99 1.5 s" in lines[1]
    assert lines[4].split()[2:5] == ["25.0", "25%", "50M"], "requests of the last two seconds"


def test_rows_are_sorted_by_any_column_with_the_largest_first() -> None:
    view = TopView()
    view.learn(document({"requests_total": 1}, {"requests_total": 3}, {"requests_total": 2, "state": "failed"}))
    assert names(view) == ["web.1@7", "web.2@7", "web.3@7"]
    view.sort(column("REQUESTS"))
    assert names(view) == ["web.2@7", "web.3@7", "web.1@7"]
    view.sort(column("STATE") - column("REQUESTS"))
    assert names(view) == ["web.3@7", "web.1@7", "web.2@7"]
    view.sort(column("CPU") - column("STATE"))
    assert len(names(view)) == 3, "although no value is known"


def test_the_cursor_keeps_its_backend_when_the_order_changes() -> None:
    view = TopView()
    assert view.selected is None
    view.learn(document({"requests_total": 1}, {"requests_total": 3}))
    assert view.selected is not None
    assert view.selected["id"] == "web.1"
    view.move(1)
    view.move(5)
    view.sort(column("REQUESTS"))
    assert view.selected["id"] == "web.2"
    assert shown(view)[-1].endswith("r reload web   d drain web.2")


@pytest.mark.parametrize(("width", "height"), [(60, 10), (80, 24), (200, 50), (20, 5)])
def test_it_fits_every_terminal_and_the_cursor_is_always_seen(width: int, height: int) -> None:
    view = TopView()
    view.learn(document(*[{}] * 40))
    for _ in range(40):
        view.move(1)
    assert any(line.startswith("web.40@7") for line in shown(view, width, height)) or width < 40


def test_many_pools_leave_room_for_the_backends() -> None:
    view = TopView()
    answer = document({})
    view.learn({**answer, "pools": {f"pool{number}": answer["pools"]["web"] for number in range(50)}})
    lines = shown(view)
    assert lines[10] == "\u2026 41 more lines about pools"
    assert lines[-1].startswith("q quit")


def test_trouble_is_said() -> None:
    view = TopView()
    answer = document({"state": "failed"}, differs_from_file=["size"])
    view.learn({**answer, "workers_wanted": 2})
    text = "\n".join(shown(view))
    assert "1 of 2 workers do not serve" in text
    assert "nothing serves: 1 failed" in text
    assert "not as in the file" in text


def test_numbers_are_short() -> None:
    assert [rate(0.04), rate(12.34), rate(1234.5)] == ["0.0", "12.3", "1234"]
    assert [mebibytes(5 * 2**20), mebibytes(3 * 2**30)] == ["5M", "3.0G"]
    assert [milliseconds(0.00123), milliseconds(0.25), milliseconds(2.5)] == ["1.23 ms", "250 ms", "2.5 s"]
