from pathlib import Path

from support.fake_control import fake_control, refusal

from lbproxy.cli.main import run


def test_a_failure_is_told_with_its_attempts_and_no_control_character(tmp_path: Path, capsys) -> None:
    failure = {
        "time": "2026-01-01T12:00:00.000Z",
        "duration_s": 0.31234,
        "client": "192.0.2.7",
        "request": "GET /\x1b[31m",
        "pool": "web",
        "backend": "web.2@1",
        "status": 502,
        "error": "connection_terminated",
        "reason": "it ended",
        "tries": [{"backend": "web.1@1", "after_s": 0.01, "why": "refused"}],
    }
    with fake_control(tmp_path / "control") as control:
        control.answers["GET /v1/why"] = {"request_id": "a b", "failures": [failure]}
        assert run(["--control", control.path, "why", "a b"], {}) == 0
        assert control.asked[0][1] == "/v1/why?request=a+b"
        assert capsys.readouterr().out.splitlines() == [
            "2026-01-01T12:00:00.000Z  GET /\\x1b[31m  from 192.0.2.7",
            "  502 after 0.312s  web.2@1  connection_terminated",
            "  it ended",
            "  try 1: web.1@1, given up after 0.010s: refused",
        ]
        control.answers["GET /v1/why"] = refusal(404, "no failed exchange 'x' among the last 0", 1)
        assert run(["--control", control.path, "why", "x"], {}) == 1
        assert capsys.readouterr().err == "lbproxy: no failed exchange 'x' among the last 0\n"
