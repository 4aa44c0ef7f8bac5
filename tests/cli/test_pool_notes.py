"""The lines of `status` below a pool's title."""

from typing import Any

import pytest

from lbproxy.cli.pool_notes import pool_notes


@pytest.mark.parametrize(
    ("pool", "notes"),
    [
        ({}, []),
        ({"reload": None, "differs_from_file": []}, []),
        (
            {"reload": {"id": "r3", "verb": "reload", "step": "rolling", "generation": 7}},
            ["reload r3 to generation 7: rolling"],
        ),
        (
            {
                "reload": {
                    "id": "r3",
                    "verb": "reload",
                    "step": "paused",
                    "generation": 7,
                    "why": "web.2@7: exit code 1",
                }
            },
            [
                "reload r3 stopped half-way to generation 7: web.2@7: exit code 1; "
                "lbproxy resume, abort or rollback web goes on from here"
            ],
        ),
        ({"differs_from_file": ["size", "env"]}, ["not as in the file, until the next reload: size, env"]),
    ],
)
def test_what_is_said(pool: dict[str, Any], notes: list[str]) -> None:
    assert pool_notes("web", pool) == notes
