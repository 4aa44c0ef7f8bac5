"""A hint is tested by following it: what it says to write must be accepted, and be what the user meant."""

import re
from pathlib import Path

import pytest

from lbproxy.config.load import load
from lbproxy.config.problems import ConfigInvalid

LISTENER = '[[listener]]\naddress = ":8080"\n'
POOL = '[pool.web]\ncommand = "true {port}"\n'
_written = re.compile(r"\(write (.*?)(?:, or write .*)?\)$")


def problems(text: str, tmp_path: Path) -> list[str]:
    file = tmp_path / "lb.toml"
    file.write_text(text)
    try:
        load(file)
    except ConfigInvalid as exc:
        return [problem.message for problem in exc.problems]
    return []


def hint(text: str, tmp_path: Path) -> str:
    """What the only mistake says to write."""
    (message,) = problems(text, tmp_path)
    found = _written.search(message)
    assert found is not None, message
    return found[1]


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("24100", ":24100"),
        ('"24100"', ":24100"),
        ('"localhost"', "localhost:8080"),
        ('"10.0.0.1"', "10.0.0.1:8080"),
        ('"http://localhost:24100"', "localhost:24100"),
        ('"http://localhost:24100/"', "localhost:24100"),
        ('"http://localhost"', "localhost:80"),
        ('"https://a.example/x"', "a.example:443"),
        ('"tcp://0.0.0.0:80"', "0.0.0.0:80"),
        ('"*:80"', ":80"),
        ('"::1:8080"', "[::1]:8080"),
        ('"::"', "[::]:8080"),
        ('"/run/app.sock"', "unix:/run/app.sock"),
    ],
)
def test_an_address_is_what_was_meant(wrong: str, right: str, tmp_path: Path) -> None:
    written = hint(f"[[listener]]\naddress = {wrong}\n{POOL}", tmp_path)
    assert written == f'"{right}"'
    assert problems(f"[[listener]]\naddress = {written}\n{POOL}", tmp_path) == []


@pytest.mark.parametrize("port", [0, 65536, 70000, 10**12])
def test_a_port_out_of_range_is_called_that(port: int, tmp_path: Path) -> None:
    (message,) = problems(f'[[listener]]\naddress = ":{port}"\n{POOL}', tmp_path)
    assert message == f"listener.address: expected a port from 1 to 65535, got ':{port}'"


@pytest.mark.parametrize("value", ["[]", "true", "1.5", '""', '":"', '"a b:80"', '"ftp://"'])
def test_where_nothing_can_be_guessed_there_is_no_hint(value: str, tmp_path: Path) -> None:
    (message,) = problems(f"[[listener]]\naddress = {value}\n{POOL}", tmp_path)
    assert "write" not in message
    assert message.count("got") <= 1


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("cd app && ./serve {port}", '["sh", "-c", "cd app && ./serve {port}"]'),
        ("FOO=1 ./serve {port}", '["sh", "-c", "FOO=1 ./serve {port}"]'),
        ("./serve --port $PORT", '["sh", "-c", "./serve --port $PORT"]'),
        ("./serve {port} > log.txt", '["sh", "-c", "./serve {port} > log.txt"]'),
        ("./serve {port} 2>&1", '["sh", "-c", "./serve {port} 2>&1"]'),
        ("./serve {port} | tee log", '["sh", "-c", "./serve {port} | tee log"]'),
        ("./migrate; ./serve {port}", '["sh", "-c", "./migrate; ./serve {port}"]'),
        ("./serve {port} &", '["sh", "-c", "./serve {port} &"]'),
        ("source venv/bin/activate && a {port}", '["sh", "-c", "source venv/bin/activate && a {port}"]'),
        ("exec ./serve {port}", '["sh", "-c", "exec ./serve {port}"]'),
        ("~/bin/serve {port}", '["sh", "-c", "~/bin/serve {port}"]'),
        ("./serve $(cat port)", '["sh", "-c", "./serve $(cat port)"]'),
        ("./serve `cat port`", '["sh", "-c", "./serve `cat port`"]'),
    ],
)
def test_a_command_for_a_shell_is_named_and_can_be_given_to_one(wrong: str, right: str, tmp_path: Path) -> None:
    written = hint(f'{LISTENER}[pool.web]\ncommand = "{wrong}"\n', tmp_path)
    assert written == right
    assert problems(f"{LISTENER}[pool.web]\ncommand = {written}\n", tmp_path) == []


@pytest.mark.parametrize(
    "command",
    [
        "sh -c 'cd app && exec ./serve {port}'",
        "/bin/bash -lc 'FOO=1 ./serve {port} > log'",
        "env FOO=1 ./serve {port}",
        "./serve {port} --match 'a && b; c | d > e'",
        "./serve {port} --url http://a/?x=1&y=2",
        "./serve {port} --price '$PORT'",
        "./serve {port} a;b",
    ],
)
def test_what_only_looks_like_a_shell_is_left_alone(command: str, tmp_path: Path) -> None:
    assert problems(f'{LISTENER}[pool.web]\ncommand = "{command}"\n', tmp_path) == []


@pytest.mark.parametrize(
    ("misplaced", "place"),
    [
        ('[timeouts]\nidle = "1s"', "[listener.timeouts] behind a [[listener]] or in [pool.NAME.timeouts]"),
        ("[limits]\nconnections = 3", "[listener.limits] behind a [[listener]] or in [pool.NAME.limits]"),
        ('[health]\npath = "/"', "[pool.NAME.health]"),
        ("[drain]\n", "[pool.NAME.drain]"),
        ("[queue]\nsize = 3\n", "[pool.NAME.limits.queue]"),
        ("[backoff]\n", "[pool.NAME.restart.backoff]"),
        ("workers = 4", "[proxy]"),
        ('command = "true {port}"', "[pool.NAME]"),
        ('mode = "http"', "[[listener]]"),
        ('level = "info"', "[log]"),
    ],
)
def test_what_stands_in_the_wrong_place_is_told_where_it_belongs(misplaced: str, place: str, tmp_path: Path) -> None:
    (message,) = problems(f"{misplaced}\n{LISTENER}{POOL}", tmp_path)
    assert message.endswith(f" (it belongs in {place})")
    for header in re.findall(r"\[+[^\]]*\]+", place):
        if header == "[[listener]]":
            continue
        body = misplaced.partition("\n")[2] if misplaced.startswith("[") else misplaced
        table = f"{header.replace('NAME', 'web')}\n{body}\n"
        text = f"{LISTENER}{POOL}{table}" if header != "[pool.NAME]" else f"{LISTENER}[pool.web]\n{body}\n"
        assert problems(text, tmp_path) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[listener]]\nadress = ":80"\n' + POOL, "unknown key 'adress' in [[listener]] (did you mean 'address'?)"),
        (
            LISTENER + '[pool.web]\ncomand = "true {port}"\n',
            "unknown key 'comand' in [pool.web] (did you mean 'command'?)",
        ),
        ('[[listner]]\naddress = ":80"\n' + POOL, "unknown key 'listner' (did you mean 'listener'?)"),
        (LISTENER + '[pools.web]\ncommand = "true {port}"\n', "unknown key 'pools' (did you mean 'pool'?)"),
        (LISTENER + POOL + '[[route]]\npol = "web"\n', "unknown key 'pol' in [[route]] (did you mean 'pool'?)"),
    ],
)
def test_a_misspelt_key_is_one_mistake_and_not_two(text: str, message: str, tmp_path: Path) -> None:
    assert problems(text, tmp_path) == [message]


def test_a_pool_that_is_written_as_a_list_is_told_its_header(tmp_path: Path) -> None:
    (message,) = problems(LISTENER + '[[pool]]\nname = "web"\ncommand = "true {port}"\n', tmp_path)
    assert message == "pool: expected a table, got a list (write [pool.web])"
    (message,) = problems(LISTENER + "[[pool]]\n", tmp_path)
    assert message == "pool: expected a table, got a list (write [pool.NAME])"
