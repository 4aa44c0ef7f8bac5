import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.address import Address
from lbproxy.config.control_path import control_path, control_path_for_listener
from lbproxy.config.load import from_command, load
from lbproxy.config.problems import ConfigInvalid, Problem

GOOD = '[[listener]]\naddress = ":8080"\n[pool.web]\ncommand = "app"\n'


def test_the_example_of_the_contract_is_answered_to_the_letter(report):
    text = """\
[[listener]]
address = ":8080"

[proxy]
# how many
wokers = 4
[pool.web]
balance = "least_con"
command = "uvicorn app:app --port {port}"
"""
    assert report(text) == (
        "lb.toml:6:1: error: unknown key 'wokers' in [proxy] (did you mean 'workers'?)\n"
        "     6 | wokers = 4\n"
        "lb.toml:8:1: error: pool.web.balance: expected least_conn, round_robin, random_two or hash, got 'least_con'\n"
        '     8 | balance = "least_con"\n'
        "2 errors"
    )


def test_every_mistake_is_told_at_once_each_by_whoever_finds_it(report):
    text = """\
[[listener]]
address = ":8080"
timeouts = { header = 10, idle = "75s" }
tls = { acme = { domains = ["*.b.c"] } }

[[listener]]
address = "127.0.0.1:8080"
pool = "wbe"

[pool.web]
command = "uvicorn app:app --port {prt}"
directory = "gone"
  [pool.web.helth]
  path = "/"
[pool.web.restart]
max_memory = 1000

[pool.api]
[admin]
address = "0.0.0.0:9901"
[[route]]
host = "a"
"""
    expected = """\
lb.toml:3:14: error: listener.timeouts.header: expected a duration such as "30s", got 10 (write "10s")
     3 | timeouts = { header = 10, idle = "75s" }
lb.toml:4:29: error: listener.tls.acme.domains: '*.b.c': a wildcard needs a challenge in the DNS, and lbproxy \
answers by HTTP only
     4 | tls = { acme = { domains = ["*.b.c"] } }
lb.toml:7:1: error: listener.address: '127.0.0.1:8080' is covered by ':8080' (line 2)
     7 | address = "127.0.0.1:8080"
lb.toml:8:1: error: listener.pool: no pool is called 'wbe' (did you mean 'web'?)
     8 | pool = "wbe"
lb.toml:11:1: error: pool.web.command: unknown placeholder {prt} (did you mean '{port}'?)
    11 | command = "uvicorn app:app --port {prt}"
lb.toml:12:1: error: pool.web.directory: there is no directory '/…/gone'
    12 | directory = "gone"
lb.toml:13:13: error: unknown key 'helth' in [pool.web] (did you mean 'health'?)
    13 |   [pool.web.helth]
lb.toml:16:1: error: pool.web.restart.max_memory: expected a size such as "16KiB", got 1000 (write "1kB")
    16 | max_memory = 1000
lb.toml:18:1: error: 'command' or 'targets' is missing in [pool.api]
    18 | [pool.api]
lb.toml:20:1: error: admin.address: '0.0.0.0:9901' is beyond loopback: that needs admin.token
    20 | address = "0.0.0.0:9901"
lb.toml:21:1: error: 'pool' is missing in [[route]]
    21 | [[route]]
11 errors"""
    assert re.sub(r"'/.*/gone'", "'/…/gone'", report(text)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "[[listener]]\naddress = :80\n",
            "lb.toml:2:11: error: not TOML: invalid value (a string stands in quotes)\n     2 | address = :80\n1 error",
        ),
        (
            "a = 1\n\n[proxy",
            "lb.toml:3:7: error: not TOML: expected ']' at the end of a table declaration\n     3 | [proxy\n1 error",
        ),
        (
            GOOD + "command = 'b'\n",
            "lb.toml:5:14: error: not TOML: cannot overwrite a value\n     5 | command = 'b'\n1 error",
        ),
        ("a = " + "[" * 100_000, "lb.toml: error: not TOML: nested too deeply\n1 error"),
        (
            "",
            'lb.toml:1:1: error: no listener: write [[listener]] and below it address = ":8080"\n'
            "     1 |\n"
            "lb.toml:1:1: error: no pool: write [pool.web] and below it a command or targets\n"
            "     1 |\n"
            "2 errors",
        ),
        (
            GOOD.replace("\n", "\r\n") + "siez = 2\r\n",
            "lb.toml:5:1: error: unknown key 'siez' in [pool.web] (did you mean 'size'?)\n     5 | siez = 2\n1 error",
        ),
        (
            GOOD + "env.A = 1\nenv.B = '2'\n",
            'lb.toml:5:5: error: pool.web.env.A: expected a string, got 1 (write "1")\n     5 | env.A = 1\n1 error',
        ),
        (
            GOOD.replace("[pool", "trusted_proxies = [\n  '::1',\n  'x',\n]\n[pool"),
            "lb.toml:5:3: error: listener.trusted_proxies: expected a network such as 10.0.0.0/8 or an IP address, "
            "got 'x'\n     5 |   'x',\n1 error",
        ),
        (
            GOOD + "targets = ['a:1']\n",
            "lb.toml:5:1: error: pool.web.targets: a pool has either a command or targets, not both (line 4)\n"
            "     5 | targets = ['a:1']\n1 error",
        ),
        (
            GOOD.replace("[[listener]]", "[listener]"),
            "lb.toml:1:1: error: listener: expected a list, got a table (write [[listener]])\n"
            "     1 | [listener]\n1 error",
        ),
        (
            '[[listener]]\n[pool.web]\ncommand = "app"\n',
            "lb.toml:1:1: error: 'address' is missing in [[listener]]\n     1 | [[listener]]\n1 error",
        ),
        (
            GOOD.replace("[pool", "tls = 1\n[pool"),
            "lb.toml:3:1: error: listener.tls: expected a table, got 1\n     3 | tls = 1\n1 error",
        ),
    ],
)
def test_a_mistake_is_told_with_its_place(text: str, expected: str, report):
    assert report(text) == expected


def test_a_file_that_is_not_there_is_told():
    with pytest.raises(ConfigInvalid) as caught:
        load("/nowhere/lb.toml")
    assert caught.value.text == "/nowhere/lb.toml: error: cannot be read: No such file or directory\n1 error"


def test_a_directory_is_no_file(tmp_path: Path):
    with pytest.raises(ConfigInvalid, match="Is a directory"):
        load(tmp_path)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_bytes_that_are_not_utf_8_are_located(mark: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("lb.toml").write_bytes(mark + 'a = "é'.encode() + b'"\nb = "\xe9"\n')
    with pytest.raises(ConfigInvalid) as caught:
        load("lb.toml")
    assert caught.value.text == (
        'lb.toml:2:6: error: not UTF-8: invalid continuation byte\n     2 | b = "\\xe9"\n1 error'
    )


def test_a_byte_order_mark_does_no_harm(loaded):
    assert loaded("\ufeff" + GOOD).pools


def test_the_file_is_called_as_the_user_called_it(loaded, tmp_path: Path):
    loaded(GOOD)
    assert load(tmp_path / "lb.toml").path == str(tmp_path / "lb.toml")
    Path("lb.toml").write_text(GOOD + "x = 1")
    with pytest.raises(ConfigInvalid, match=r"^\./lb\.toml:5:1: error: unknown key 'x'"):
        load("./lb.toml")


def test_client_commands_find_the_same_control_socket(loaded):
    assert loaded(GOOD).proxy.control == control_path("lb.toml")
    assert (
        loaded(GOOD + "[proxy]\ncontrol = 'a.sock'").proxy.control
        == control_path("lb.toml")
        == os.path.abspath("a.sock")
    )


def test_a_command_line_is_a_pool_called_web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    settings = from_command(":8080", 4, ["uvicorn", "app:app", "--port", "{port}"])
    [listener], [pool] = settings.listeners, settings.pools
    assert (settings.path, listener.address, listener.pool) == (None, Address(port=8080), "web")
    assert (pool.name, pool.size, pool.directory) == ("web", 4, str(tmp_path))
    assert pool.command == ("uvicorn", "app:app", "--port", "{port}")
    assert settings.proxy.control == control_path_for_listener(":8080")


def test_mistakes_on_the_command_line_are_told_at_once():
    with pytest.raises(ConfigInvalid) as caught:
        from_command("8080", 0, ["app", "{prt}"])
    assert set(caught.value.text.splitlines()) == {
        "-l: error: expected host:port, :port, [v6]:port or unix:/path, got '8080' (write \":8080\")",
        '-n: error: expected a whole number from 1 to 1000 or "auto", got 0',
        "command: error: unknown placeholder {prt} (did you mean '{port}'?)",
        "3 errors",
    }


KEYS = [
    "proxy",
    "listener",
    "route",
    "pool",
    "web",
    "command",
    "size",
    "[key]",
    "health",
    "env",
    "address",
    "limits",
    "",
]
NODES = st.recursive(
    st.sampled_from(["", "a", ":80", "auto", "{port}", "\0", 0, -1, 1.5, True, "unix:"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)


@given(document=st.dictionaries(st.sampled_from(KEYS), NODES, min_size=1))
def test_any_document_is_loaded_or_told_what_is_wrong(document: dict[str, object], tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_text("".join(f"{toml(key)} = {toml(value)}\n" for key, value in document.items()))
    problems = problems_of(path)
    assert all(problem.line >= 1 and problem.column >= 1 and problem.message for problem in problems)


@given(
    cut=st.integers(0, len(GOOD)), junk=st.text(max_size=3) | st.sampled_from(['"', "[", "]", "=", "\n", '"""', "{"])
)
def test_a_damaged_file_is_loaded_or_told_what_is_wrong(cut: int, junk: str, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "damaged.toml"
    path.write_bytes((GOOD[:cut] + junk + GOOD[cut:]).encode("utf-8", errors="replace"))
    assert len(problems_of(path)) < 5


def problems_of(path: Path) -> tuple[Problem, ...]:
    try:
        load(path)
    except ConfigInvalid as exc:
        return exc.problems
    return ()


def toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(key)} = {toml(below)}" for key, below in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, str):
        return '"' + value.replace("\0", "\\u0000") + '"'
    return str(value).lower()
