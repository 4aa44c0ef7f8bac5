import os
import subprocess
import sys

import pytest
from support.children import generation, pool
from support.users import NOBODY, needs_root

from lbproxy.address import Address
from lbproxy.config.user import User
from lbproxy.model import BackendSpec
from lbproxy.supervise.command import CannotStart, environment, filled, find_program, order_for
from lbproxy.supervise.endpoint import Endpoint

TCP = Endpoint(
    Address("127.0.0.1", 20001), {"port": "20001", "host": "127.0.0.1"}, {"PORT": "20001", "HOST": "127.0.0.1"}
)


def env_of(monkeypatch, *, endpoint=TCP, user=None, env=(), **inherited):
    for name, value in inherited.items():
        monkeypatch.setenv(name, value)
    return environment(BackendSpec(3, generation(pool("true", env=env))), endpoint, user)


def test_placeholders_are_filled_wherever_they_stand():
    values = {"port": "1", "slot": "3"}
    assert filled("--bind=h:{port}/{slot}{slot}", values) == "--bind=h:1/33"
    assert filled("{PORT} ${X}", values) == "{PORT} ${X}"


def test_a_brace_is_written_twice_as_check_demands_it():
    assert filled('{{"json": {{}}}} {{port}} {{{port}}} ${{X}}', {"port": "1"}) == '{"json": {}} {port} {1} ${X}'


def test_a_placeholder_without_a_value_is_refused():
    with pytest.raises(CannotStart, match=r"\{fd\} has no value"):
        filled("{fd}", {"port": "1"})


def test_the_order_has_the_filled_words_and_the_programs_path():
    order = order_for(BackendSpec(3, generation(pool("sh", "-c", "{host}:{port} {slot} {generation}"))), TCP, None)
    assert order.command[0].endswith("/sh")
    assert order.command[1:] == ("-c", "127.0.0.1:20001 3 7")
    assert order.directory == "/"


def test_the_environment_is_that_of_the_contract(monkeypatch):
    env = env_of(monkeypatch)
    expected = {"PORT": "20001", "HOST": "127.0.0.1", "LBPROXY_POOL": "web", "LBPROXY_SLOT": "3"} | {
        "LBPROXY_GENERATION": "7",
        "NODE_APP_INSTANCE": "2",
        "PYTHONUNBUFFERED": "1",
        "WEB_CONCURRENCY": "1",
        "PATH": os.environ["PATH"],
    }
    assert {name: env[name] for name in expected} == expected


def test_env_may_set_web_concurrency_and_what_we_inherited_does_not(monkeypatch):
    assert env_of(monkeypatch, WEB_CONCURRENCY="4")["WEB_CONCURRENCY"] == "1"
    assert env_of(monkeypatch, env=(("WEB_CONCURRENCY", "4"),))["WEB_CONCURRENCY"] == "4"


def test_env_does_not_change_where_it_is_to_listen(monkeypatch):
    env = env_of(monkeypatch, env=(("PORT", "80"), ("LBPROXY_SLOT", "9"), ("A", "b")))
    assert (env["PORT"], env["LBPROXY_SLOT"], env["A"]) == ("20001", "3", "b")


def test_what_was_meant_for_lbproxy_is_not_passed_on(monkeypatch):
    unix = Endpoint(Address(path="/s"), {"socket": "/s"}, {"LBPROXY_SOCKET": "/s"})
    env = env_of(monkeypatch, endpoint=unix, PORT="8080", HOST="0", LISTEN_FDS="2", LISTEN_PID="1", NOTIFY_SOCKET="/n")
    assert not {"PORT", "HOST", "LISTEN_FDS", "LISTEN_PID", "NOTIFY_SOCKET"} & set(env)
    assert env["LBPROXY_SOCKET"] == "/s"


def test_a_user_gets_a_home_and_a_name_unless_env_says_otherwise(monkeypatch):
    user = User("www", 33, 33, (33,), "/var/www")
    env = env_of(monkeypatch, user=user, env=(("HOME", "/srv"),))
    assert (env["HOME"], env["USER"], env["LOGNAME"]) == ("/srv", "www", "www")


def test_a_program_is_found_in_the_directory_and_on_the_path(tmp_path):
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "run"
    program.write_text("#!/bin/sh\n")
    for word in ("bin/run", "./bin/run", str(program)):
        with pytest.raises(CannotStart, match="not executable"):
            find_program(word, str(tmp_path), "")
    program.chmod(0o755)
    for word in ("bin/run", "./bin/run", str(program)):
        assert os.path.samefile(find_program(word, str(tmp_path), ""), program)
    assert os.path.samefile(find_program("run", str(tmp_path), "/nowhere:bin"), program)


def test_a_directory_is_no_program(tmp_path):
    with pytest.raises(CannotStart, match="not executable"):
        find_program("/etc", "/", "")
    with pytest.raises(CannotStart, match="command not found: 'etc'"):
        find_program("etc", "/", "/")


@needs_root
def test_a_directory_of_path_that_is_closed_is_passed_over(tmp_path):
    tmp_path.chmod(0o700)
    (tmp_path / "sh").write_text("")
    script = f"from lbproxy.supervise.command import find_program; print(find_program('sh', '/', '{tmp_path}:/bin'))"
    told = subprocess.run([sys.executable, "-c", script], user=NOBODY, capture_output=True, text=True, check=True)
    assert told.stdout == "/bin/sh\n"


def test_python_itself_is_found():
    assert find_program(sys.executable, "/", "") == sys.executable
