"""The key of an account."""

from pathlib import Path

import pytest
from support.certificates import make_key

from lbproxy.acme.account import account_key
from lbproxy.acme.messages import Order


def order(tmp_path: Path, server: str) -> Order:
    return Order(str(tmp_path / "acme" / "a.pem"), ("a.example",), server)


def test_each_server_has_one_key_that_stays(tmp_path: Path) -> None:
    first = account_key(order(tmp_path, "https://one.example/dir"))
    assert account_key(order(tmp_path, "https://one.example/dir")).thumbprint() == first.thumbprint()
    assert account_key(order(tmp_path, "https://two.example/dir")).thumbprint() != first.thumbprint()
    files = list((tmp_path / "acme" / "accounts").iterdir())
    assert [file.stat().st_mode & 0o777 for file in files] == [0o600] * 2


def test_a_file_that_holds_another_key_is_not_used(tmp_path: Path) -> None:
    wanted = order(tmp_path, "https://one.example/dir")
    account_key(wanted)
    (file,) = (tmp_path / "acme" / "accounts").iterdir()
    make_key(file, "rsa")
    with pytest.raises(ValueError, match="no key of an account"):
        account_key(wanted)
