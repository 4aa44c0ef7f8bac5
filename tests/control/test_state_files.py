"""Files that outlive lbproxy: whole or not at all; what is broken is said and ignored."""

import json
import os
import stat

import pytest
import trio
import trio.testing
from support.trio_test import trio_test

from lbproxy.control.state_files import StateFiles
from lbproxy.telemetry.events import Notice


class Said(list[Notice]):
    def texts(self) -> list[str]:
        return [event.text for event in self]


@trio_test
async def test_what_was_saved_last_is_there_again(tmp_path):
    said = Said()
    directory = tmp_path / "a" / "state"
    files = StateFiles(str(directory), said.append)
    assert files.read("x") is None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(files.run)
        files.save("x", lambda: [1])
        await trio.testing.wait_all_tasks_blocked(0.2)
        files.save("x", lambda: [2])
        files.save("y", lambda: {"a": "ü"})
        nursery.cancel_scope.cancel()
    assert files.read("x") == [2], "the end writes what is left"
    assert StateFiles(str(directory), said.append).read("y") == {"a": "ü"}
    assert sorted(os.listdir(directory)) == ["x.json", "y.json"]
    assert stat.S_IMODE((directory / "x.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert said == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"version": 1}',
        '{"version": 2, "value": []}',
        "\x00",
        '{"version": 1, "value": ' + "[" * 99999,
    ],
)
def test_what_is_broken_is_said_and_ignored(tmp_path, text):
    said = Said()
    (tmp_path / "x.json").write_text(text)
    assert StateFiles(str(tmp_path), said.append).read("x") is None
    assert [line.startswith(f"{tmp_path}/x.json is ignored: ") for line in said.texts()] == [True]


@trio_test
async def test_a_directory_that_cannot_be_used_is_said_once(tmp_path):
    said = Said()
    (tmp_path / "file").write_text("")
    files = StateFiles(str(tmp_path / "file" / "state"), said.append)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(files.run)
        for number in range(3):
            files.save("x", lambda number=number: number)
            await trio.testing.wait_all_tasks_blocked(0.05)
        nursery.cancel_scope.cancel()
    (line,) = said.texts()
    assert line.startswith("what outlives lbproxy cannot be kept: ")
    assert "ot a directory" in line


@trio_test
async def test_without_a_directory_nothing_is_kept(tmp_path):
    files = StateFiles(None, lambda event: None)
    files.save("x", lambda: 1)
    with trio.move_on_after(0.05):
        await files.run()
    assert files.read("x") is None
    assert json.dumps(os.listdir(tmp_path)) == "[]"
