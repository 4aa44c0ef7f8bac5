"""One class with all functions of the express lane; a mistake in one of them costs one connection."""

import inspect

import pytest
from support.proxy import GET, OK, answering, proxy
from support.trio_test import trio_test

from lbproxy.worker.express.client import ExpressClient


@pytest.mark.parametrize("mistake", ["express.client.ExpressClient.answer", "express.reply.send_last"])
@trio_test(timeout_s=8)
async def test_a_mistake_of_ours_costs_one_client_and_nothing_else(
    mistake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with proxy("express", answering(OK)) as lb:
        kept, lost = await lb.client(), await lb.client()
        await kept.send(GET)
        await kept.answer()
        lb.expected_notices = 1
        with monkeypatch.context() as patch:
            patch.setattr(f"lbproxy.worker.{mistake}", None)
            await lost.send(GET)
            assert await lost.rest() == b""
        assert "a connection was dropped" in lb.notices[0]
        await kept.send(GET)
        assert (await kept.answer()).status == 200


@trio_test(timeout_s=8)
async def test_a_mistake_while_a_backend_is_held_lets_go_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with proxy("express", answering(OK)) as lb:
        lb.expected_notices = 1
        with monkeypatch.context() as patch:
            patch.setattr("lbproxy.worker.express.reply.read_response", None)
            client = await lb.client()
            await client.send(GET)
            assert await client.rest() == b""
        assert lb.leases == 0
        assert (await lb.ask(GET)).status == 200


def test_a_connection_is_three_classes_deep_and_has_no_dictionary() -> None:
    ours = [one for one in ExpressClient.__mro__ if one.__module__.startswith("lbproxy")]
    assert len(ours) == 3
    assert not hasattr(ExpressClient, "__dict__") or "__dict__" not in dir(ExpressClient)


def test_what_the_class_lists_are_functions_over_a_record() -> None:
    listed = [value for name, value in vars(ExpressClient).items() if not name.startswith("__")]
    assert len(listed) > 20
    assert all(
        inspect.isfunction(value) and next(iter(inspect.signature(value).parameters)) == "record" for value in listed
    )
