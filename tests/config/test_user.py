import os
import pwd

import pytest

from lbproxy.config.user import user_of, why_not

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
DAEMON = pwd.getpwnam("daemon")


@pytest.mark.parametrize("text", ["nobody-at-all", "99999999999999999999", "4294967295", "-1", "nobody-at-all:1000"])
def test_an_unknown_user_is_named(text):
    with pytest.raises(ValueError, match=f"there is no user '{text.partition(':')[0]}'"):
        user_of(text)


@pytest.mark.parametrize("text", ["", ":", "1000:", ":1000"])
def test_half_a_user_is_refused(text):
    with pytest.raises(ValueError, match="expected a name, a number, or both with a group"):
        user_of(text)


def test_an_unknown_group_is_named():
    with pytest.raises(ValueError, match="there is no group 'no-such-group'"):
        user_of("daemon:no-such-group")


@pytest.mark.parametrize("text", ["daemon", str(DAEMON.pw_uid)])
def test_a_user_brings_groups_and_home(text):
    user = user_of(text)
    assert (user.name, user.uid, user.gid, user.home) == ("daemon", DAEMON.pw_uid, DAEMON.pw_gid, DAEMON.pw_dir)
    assert DAEMON.pw_gid in user.groups


def test_a_number_needs_no_entry_in_the_user_database():
    user = user_of("54321")
    assert (user.name, user.uid, user.gid, user.groups, user.home) == ("54321", 54321, 54321, (54321,), "/")


@pytest.mark.parametrize(("text", "ids"), [("54321:54322", (54321, 54322)), ("daemon:54322", (DAEMON.pw_uid, 54322))])
def test_a_group_may_be_given_too(text, ids):
    user = user_of(text)
    assert (user.uid, user.gid) == ids
    assert 54322 in user.groups


def test_lbproxy_may_start_a_backend_as_its_own_user():
    assert why_not(user_of(f"{os.geteuid()}:{os.getegid()}")) is None


@needs_root
def test_root_may_become_anybody():
    assert why_not(user_of("54321")) is None


@needs_root
def test_only_root_may_become_another_user():
    read_end, write_end = os.pipe()
    child = os.fork()  # the interpreter may lie where another user cannot execute it
    if not child:
        os.setgroups([])
        os.setgid(DAEMON.pw_gid)
        os.setuid(DAEMON.pw_uid)
        os.write(write_end, str(why_not(user_of("root"))).encode())
        os._exit(0)
    os.close(write_end)
    with open(read_end) as told:
        assert told.read() == "cannot run as 'root': lbproxy runs as 'daemon', and only root may change users"
    os.waitpid(child, 0)
