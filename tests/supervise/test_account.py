import os
import pwd

import pytest

from lbproxy.supervise.account import CannotStart, account_of

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")


def test_without_a_user_there_is_no_account():
    assert account_of(None) is None


@pytest.mark.parametrize("user", ["nobody-at-all", "4294967294", "99999999999999999999"])
def test_an_unknown_user_is_named(user):
    with pytest.raises(CannotStart, match=f"user unknown: '{user}'"):
        account_of(user)


@needs_root
def test_a_user_brings_groups_and_home():
    entry = pwd.getpwnam("daemon")
    for user in ("daemon", str(entry.pw_uid)):
        account = account_of(user)
        assert (account.name, account.uid, account.gid, account.home) == (
            "daemon",
            entry.pw_uid,
            entry.pw_gid,
            entry.pw_dir,
        )
        assert entry.pw_gid in account.groups


@pytest.mark.skipif(os.geteuid() == 0, reason="root may become anybody")
def test_only_root_may_become_another_user():
    assert account_of(pwd.getpwuid(os.geteuid()).pw_name) is None
    with pytest.raises(CannotStart, match="cannot run as 'root': lbproxy does not run as root"):
        account_of("root")
