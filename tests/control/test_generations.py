"""Which generations are kept for a rollback, and in which keys two of them differ."""

from dataclasses import fields, is_dataclass, replace

import pytest

from control.fakes import generation
from lbproxy.address import Address
from lbproxy.config import listener_tables, pool_tables
from lbproxy.config.tables import table_in
from lbproxy.control.generations import Generations, UnknownGeneration, differing, differing_keys, is_same
from lbproxy.settings import DrainSettings, ListenerSettings, PoolSettings, ReloadSettings


def made(number, directory, keep=2):
    return replace(generation(number, reload=ReloadSettings(keep=keep)), directory=str(directory))


@pytest.fixture
def places(tmp_path):
    for name in "abcde":
        (tmp_path / name).mkdir()
    return [tmp_path / name for name in "abcde"]


def test_the_last_few_are_kept_besides_the_one_that_serves(places):
    generations = Generations()
    for number, place in enumerate(places, 1):
        generations.served(made(number, place))
    assert generations.numbers("web") == [3, 4]
    assert generations.find("web", None).generation.number == 4
    assert generations.find("web", 3).generation.directory == str(places[2])
    assert generations.find("web", 5).generation.number == 5, "the one that serves, too: it is started anew"
    with pytest.raises(UnknownGeneration, match=r"generation 2 of web is not kept \(kept: 3, 4\)"):
        generations.find("web", 2)
    with pytest.raises(UnknownGeneration, match="no generation of api to go back to"):
        generations.find("api", None)


def test_one_that_repeats_an_older_one_counts_as_that_one(places):
    generations = Generations()
    a, b = places[:2]
    for number, place in ((1, a), (2, b), (3, b), (4, b)):
        generations.served(made(number, place))
    assert generations.numbers("web") == [1], "three deploys into one directory are one"
    generations.served(made(5, a))  # rolled back
    assert generations.numbers("web") == [4]
    assert generations.find("web", None).numbers == (2, 3, 4)
    assert generations.find("web", 5).numbers == (1, 5)
    generations.served(made(6, b))
    assert generations.find("web", 5).numbers == (1, 5)
    assert generations.find("web", 2).numbers == (2, 3, 4, 6)


def test_new_live_settings_of_the_same_generation_keep_nothing(places):
    generations = Generations()
    generations.served(made(1, places[0]))
    generations.served(made(1, places[0], keep=7))
    assert generations.numbers("web") == []


def test_a_directory_that_is_gone_is_refused(places):
    generations = Generations()
    generations.served(made(1, places[0]))
    generations.served(made(2, places[1]))
    places[0].rmdir()
    with pytest.raises(UnknownGeneration, match=f"generation 1 of web cannot come back: {places[0]} does not exist"):
        generations.find("web", None)


def test_what_was_kept_can_be_restored(places):
    generations = Generations()
    for number, place in enumerate(places[:3], 1):
        generations.served(made(number, place))
    again = Generations()
    again.restore(list(generations.kept()))
    assert list(again.kept()) == list(generations.kept())
    assert again.numbers("web") == [1, 2]
    assert again.number_of(made(99, places[2])) == 3
    assert again.number_of(made(99, places[1])) is None
    again.forget("web")
    assert again.number_of(made(99, places[2])) is None
    assert list(again.kept()) == []


def test_the_keys_that_differ_are_named_as_in_the_file(places):
    one = made(1, places[0])
    assert is_same(one, replace(one, number=9))
    settings = replace(one.settings, size=3, drain=DrainSettings(websocket_s=1.0), buffer_request_bytes=1)
    other = replace(one, settings=settings, env=(("A", "1"),), directory=str(places[1]))
    assert not is_same(one, other)
    assert differing_keys(one, other) == ("size", "drain.websocket", "buffer_request", "directory", "env_file")
    given = replace(other, settings=replace(settings, env=(("A", "1"),)))
    assert differing_keys(one, given) == ("env", "size", "drain.websocket", "buffer_request", "directory")


def test_every_key_that_can_differ_is_one_that_explain_knows():
    """Two pools and two listeners that have nothing in common."""
    for one, other, table in (
        (replace(POOL, name="web"), _all_different(POOL), pool_tables.PoolTable),
        (LISTENER, _all_different(LISTENER), listener_tables.ListenerTable),
    ):
        for key in set(differing(one, other)) - {"name"}:
            assert _is_key(table, key), key


POOL = PoolSettings("web")
LISTENER = ListenerSettings("public", Address("", 80))


def _all_different(value):
    """The same class with another value in each field."""
    found = {}
    for one in fields(value):
        mine = getattr(value, one.name)
        is_table = is_dataclass(mine) and not isinstance(mine, Address)
        found[one.name] = _all_different(mine) if is_table else object()
    return replace(value, **found)


def _is_key(table, key):
    name, _, rest = key.partition(".")
    info = {info.alias or name: info for name, info in table.model_fields.items()}.get(name)
    return info is not None and (not rest or _is_key(table_in(info.annotation), rest))
