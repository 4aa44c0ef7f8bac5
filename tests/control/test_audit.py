"""The audit log: a line for each change, a notice where it cannot be written."""

import json

from lbproxy.control.audit import Audit


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_change_is_a_line_and_the_file_can_be_rotated(tmp_path):
    path = tmp_path / "audit.log"
    audit = Audit(lambda event: None)
    audit.note({"uid": 0}, "stop", {}, "done")  # nowhere
    audit.write_to(str(path))
    audit.note({"uid": 1000, "pid": 7, "how": "command"}, "scale", {"pool": "web", "size": 6}, "ok")
    audit.close()
    (line,) = lines(path)
    assert line.pop("time").endswith("Z")
    assert line == {
        "uid": 1000,
        "pid": 7,
        "how": "command",
        "command": "scale",
        "what": {"pool": "web", "size": 6},
        "result": "ok",
    }
    audit = Audit(lambda event: None)
    audit.write_to(str(path))
    path.rename(tmp_path / "audit.log.1")
    audit.reopen()
    audit.note({"how": "USR2"}, "reload", {}, "ok")
    audit.close()
    assert [line["how"] for line in lines(path)] == ["USR2"]


def test_a_file_that_cannot_be_opened_is_said(tmp_path):
    said = []
    audit = Audit(said.append)
    audit.write_to(str(tmp_path / "nowhere" / "audit.log"))
    audit.note({}, "stop", {}, "done")
    assert [event.text for event in said] == [
        f"log.audit_path: {tmp_path}/nowhere/audit.log: No such file or directory"
    ]
