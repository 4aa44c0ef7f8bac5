"""What the control API answers, route by route."""

import json
import os
from contextlib import aclosing

import pytest
from support.trio_test import trio_test

from control.fakes import Behaviour, World, pool_settings, settings_of
from lbproxy.config.problems import ConfigInvalid, Problem
from lbproxy.control.api import Api
from lbproxy.control.api_server import Declined, Question
from lbproxy.control.audit import Audit
from lbproxy.control.connections import OpenConnections
from lbproxy.control.drains import Drains
from lbproxy.control.failures import FailedExchanges
from lbproxy.control.history import History
from lbproxy.control.reloader import Reloader
from lbproxy.settings import ReloadSettings
from lbproxy.telemetry.events import ReloadFinished


class Control:
    """The API of a world."""

    def __init__(self, tmp_path, load=None, behave=lambda spec: Behaviour(ready_after_s=0.01, stops_in_s=0.0)):
        pool = pool_settings(size=1, directory=str(tmp_path), reload=ReloadSettings(min_ready_s=0.0))
        self.world = World(settings_of(pool), behave)
        self.stopped = []
        reloader = Reloader(self.world.context, load or (lambda: self.world.settings))
        self.reloader = reloader
        self.api = None

    async def start(self):
        await self.world.nursery.start(self.reloader.run)
        world = self.world
        self.api = Api(
            *(world.context, world.grid, world.log, world.resources.outputs, self.reloader, Drains(world.context)),
            *(self.stopped.append, 0.0),
            OpenConnections(world.context.workers, world.context.fleet),
            FailedExchanges(world.context.workers),
            History(lambda record: None),
            Audit(world.emit),
        )

    async def ask(self, method, path, query=None, **values):
        return await self.api.answer(Question(method, path, query or {}, values))

    async def lines(self, answer):
        async with aclosing(answer.lines) as lines:
            found = [json.loads(json.dumps(line)) async for line in lines]
        if answer.on_end is not None:
            answer.on_end()
        return found


@trio_test
async def test_a_reload_is_answered_with_its_events_to_the_end(tmp_path):
    control = Control(tmp_path)
    async with control.world.running():
        await control.start()
        lines = await control.lines(await control.ask("POST", "/v1/reload"))
        names = [line["event"] for line in lines]
        assert names[0] == "reload.started"
        assert names[-2:] == ["reload.done", "reload.finished"]
        assert {line["reload"] for line in lines} == {"r1"}
        assert lines[-2]["result"] == "ok"
        assert lines[-1]["exit_code"] == 0
        assert control.world.log._subscriptions == []


@trio_test
async def test_a_second_reload_is_busy_with_its_exit_code(tmp_path):
    control = Control(tmp_path)
    async with control.world.running():
        await control.start()
        first = await control.ask("POST", "/v1/reload")
        with pytest.raises(Declined) as caught:
            await control.ask("POST", "/v1/reload")
        assert (caught.value.answer.status, caught.value.answer.values["exit_code"]) == (409, 8)
        assert (await control.lines(first))[-1]["exit_code"] == 0


@trio_test
async def test_a_reload_goes_on_when_its_client_hangs_up(tmp_path):
    control = Control(tmp_path)
    async with control.world.running():
        await control.start()
        answer = await control.ask("POST", "/v1/reload")
        await answer.lines.aclose()
        answer.on_end()
        await control.world.wait_for(ReloadFinished)
        assert control.world.of(ReloadFinished)[0].exit_code == 0


@trio_test
async def test_an_invalid_configuration_is_422_with_the_whole_report(tmp_path):
    def load():
        raise ConfigInvalid([Problem("lb.toml", 6, 1, "unknown key 'wokers'", "wokers = 4")])

    control = Control(tmp_path, load)
    async with control.world.running():
        await control.start()
        with pytest.raises(Declined) as caught:
            await control.ask("POST", "/v1/reload")
        answer = caught.value.answer
        assert (answer.status, answer.values["exit_code"]) == (422, 78)
        assert answer.values["error"].endswith("1 error")
        assert control.world.log._subscriptions == []


@trio_test
async def test_an_unknown_pool_is_404_and_wrong_types_are_400(tmp_path):
    control = Control(tmp_path)
    async with control.world.running():
        await control.start()
        for values, status in (
            ({"pools": ["api"]}, 404),
            ({"pools": "web"}, 400),
            ({"pools": [1]}, 400),
            ({"config_only": "yes"}, 400),
        ):
            with pytest.raises(Declined) as caught:
                await control.ask("POST", "/v1/reload", **values)
            assert (caught.value.answer.status, caught.value.answer.values["exit_code"]) == (status, 2)


@trio_test
async def test_a_plan_is_a_document_that_no_audit_log_has(tmp_path):
    control = Control(tmp_path)
    async with control.world.running():
        await control.start()
        control.api.audit.write_to(str(tmp_path / "audit"))
        answer = await control.ask("POST", "/v1/plan", config_only=True)
        assert (answer.values["config_only"], list(answer.values["pools"])) == (True, ["web"])
        assert json.loads(json.dumps(answer.values)) == answer.values
        for values, status in (({"pools": ["api"]}, 404), ({"config_only": "yes"}, 400)):
            with pytest.raises(Declined) as caught:
                await control.ask("POST", "/v1/plan", **values)
            assert (caught.value.answer.status, caught.value.answer.values["exit_code"]) == (status, 2)
        control.api.audit.close()
        assert (tmp_path / "audit").read_text() == ""


@trio_test
async def test_text_and_numbers_that_nothing_can_have_are_400(tmp_path):
    control = Control(tmp_path)
    async with control.world.running():
        await control.start()
        for path, values in (
            ("/v1/pause", {"pool": "web", "maintenance": True, "message": "\ud800"}),
            ("/v1/drain", {"backend": "web." + "9" * 5000}),
            ("/v1/restart", {"backend": "web.\u0663"}),
        ):
            with pytest.raises(Declined) as caught:
                await control.ask("POST", path, **values)
            assert (caught.value.answer.status, caught.value.answer.values["exit_code"]) == (400, 2)
        for count in ("9" * 5000, "\u0663", "-1", ""):
            with pytest.raises(Declined, match="n: expected a whole number"):
                await control.ask("GET", "/v1/history", {"n": count})


@trio_test
async def test_the_audit_names_who_turned_a_reload_around(tmp_path):
    control = Control(tmp_path)
    async with control.world.running():
        await control.start()
        control.api.audit.write_to(str(tmp_path / "audit.log"))
        answer = await control.ask("POST", "/v1/reload")
        await control.lines(
            await control.api.answer(Question("POST", "/v1/abort", {}, {"pool": "web"}, asked_by={"uid": 7, "pid": 8}))
        )
        await control.lines(answer)
        control.api.audit.close()
        (line,) = map(json.loads, (tmp_path / "audit.log").read_text().splitlines())
        assert (line["uid"], line["pid"], line["command"], line["what"]) == (7, 8, "abort", {"pool": "web"})
        assert line["result"] == "turns around"


@trio_test
async def test_stop_answers_at_once_with_the_pid(tmp_path):
    control = Control(tmp_path)
    async with control.world.running():
        await control.start()
        assert (await control.ask("POST", "/v1/stop")).values == {"pid": os.getpid()}
        await control.ask("POST", "/v1/stop", now=True)
        assert control.stopped == [False, True]


@trio_test
async def test_ready_is_whether_every_pool_has_somebody_to_serve(tmp_path):
    control = Control(tmp_path)
    async with control.world.running():
        await control.start()
        assert (await control.ask("GET", "/livez")).status == 200
        assert (await control.ask("GET", "/readyz")).status == 200
        control.world.member("web.1@1").runner.die()
        assert (await control.ask("GET", "/readyz")).status == 503


@trio_test
async def test_what_never_was_is_404_and_another_method_405(tmp_path):
    control = Control(tmp_path)
    async with control.world.running():
        await control.start()
        for method, path, status in (
            ("GET", "/v1/nothing", 404),
            ("GET", "/v1/reload", 405),
            ("POST", "/v1/status", 405),
        ):
            with pytest.raises(Declined) as caught:
                await control.ask(method, path)
            assert caught.value.answer.status == status


@trio_test
async def test_status_is_the_document(tmp_path):
    control = Control(tmp_path)
    async with control.world.running():
        await control.start()
        values = (await control.ask("GET", "/v1/status")).values
        assert values["pools"]["web"]["ready"] == 1


@trio_test
async def test_logs_come_as_lines(tmp_path):
    control = Control(tmp_path)
    async with control.world.running():
        await control.start()
        control.world.member("web.1@1").runner.output.add([b"one", b"two"])
        lines = await control.lines(await control.ask("GET", "/v1/logs", {"source": "web", "n": "1"}))
        assert [(line["backend"], line["generation"], line["line"]) for line in lines] == [("web.1@1", 1, "two")]
