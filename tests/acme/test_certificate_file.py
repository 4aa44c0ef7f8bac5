"""The file that holds a certificate and its key."""

from pathlib import Path

import pytest
from support.certificates import authority, certificate

from lbproxy.acme.certificate_file import check_answer, read_lifetime, write_whole


def test_it_is_private_and_replaced_whole(tmp_path: Path) -> None:
    file = tmp_path / "acme" / "a.pem"
    write_whole(str(file), b"one")
    before = file.stat()
    (tmp_path / "acme" / "a.pem.new").write_text("left by a crash")
    write_whole(str(file), b"two")
    assert file.read_bytes() == b"two"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert file.stat().st_ino != before.st_ino
    assert [path.name for path in file.parent.iterdir()] == ["a.pem"]


def test_a_self_signed_one_only_stands_in(tmp_path: Path) -> None:
    own = certificate(tmp_path, "own.example")
    issued = certificate(tmp_path, "a.example", by=authority(tmp_path))
    found = read_lifetime(str(own.cert))
    assert found is not None
    assert found.stands_in
    found = read_lifetime(str(issued.cert))
    assert found is not None
    assert not found.stands_in
    assert 30.5 * 86_400 < found.not_after - found.not_before < 31.5 * 86_400


def test_what_is_no_certificate_has_no_lifetime(tmp_path: Path) -> None:
    (tmp_path / "bad.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    for name in ("bad.pem", "gone.pem"):
        assert read_lifetime(str(tmp_path / name)) is None


def test_an_answer_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    chain = certificate(tmp_path, "a.example", "b.example", by=authority(tmp_path)).cert.read_bytes()
    lifetime = check_answer(chain, ("b.example", "a.example"), 0.0)
    assert not lifetime.stands_in
    for text, words in (
        ((b"", ("a.example",), 0.0), "no certificate"),
        ((chain, ("a.example", "c.example"), 0.0), "does not name c.example"),
        ((chain, ("a.example",), lifetime.not_after), "expired"),
    ):
        with pytest.raises(ValueError, match=words):
            check_answer(*text)
