"""Which files of a directory are certificates, and which entries are left alone."""

from pathlib import Path

import pytest

from lbproxy.certificates.files import pairs_of, stamps_of
from lbproxy.certificates.sealed import Defect
from lbproxy.settings import CertificateFiles, TlsSettings


def found(directory: Path) -> list[tuple[str, str]]:
    pairs = pairs_of(TlsSettings(directory=str(directory)))
    return [tuple(str(Path(file).relative_to(directory)) for file in (pair.cert, pair.key)) for pair in pairs]


def touch(directory: Path, *names: str) -> None:
    for name in names:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).touch()


def test_files_that_are_named_are_taken_as_they_are() -> None:
    named = (CertificateFiles("/a", "/b"),)
    assert pairs_of(TlsSettings(certs=named)) == named


def test_the_three_layouts_are_found_in_the_order_of_their_names(tmp_path: Path) -> None:
    touch(tmp_path, "c.pem", "b.crt", "b.key", "a/fullchain.pem", "a/privkey.pem", "d.pem", "d.key")
    assert found(tmp_path) == [
        ("a/fullchain.pem", "a/privkey.pem"),
        ("b.crt", "b.key"),
        ("c.pem", "c.pem"),
        ("d.pem", "d.key"),
    ]


def test_a_directory_of_certbot(tmp_path: Path) -> None:
    names = ("cert", "chain", "fullchain", "privkey")
    for name in names:
        touch(tmp_path / "archive/example.com", f"{name}1.pem")
        (tmp_path / "live/example.com").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"live/example.com/{name}.pem").symlink_to(f"../../archive/example.com/{name}1.pem")
    touch(tmp_path / "live", "README")
    assert found(tmp_path / "live") == [("example.com/fullchain.pem", "example.com/privkey.pem")]
    with pytest.raises(Defect) as caught:
        found(tmp_path / "live/example.com")
    assert caught.value.why == (
        f"is the directory of one certificate (write directory = '{tmp_path}/live', or cert and key)"
    )


def test_a_secret_of_kubernetes(tmp_path: Path) -> None:
    touch(tmp_path / "..2026_01_01", "tls.crt", "tls.key", "ca.crt")
    (tmp_path / "..data").symlink_to("..2026_01_01")
    for name in ("tls.crt", "tls.key", "ca.crt"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    assert found(tmp_path) == [("tls.crt", "tls.key")]


def test_a_directory_without_certificates_is_said(tmp_path: Path) -> None:
    touch(tmp_path, "README", "sub/cert.pem", "alone.crt", "alone2.key")
    with pytest.raises(Defect, match="holds no certificate"):
        found(tmp_path)
    with pytest.raises(Defect, match="cannot be read: no such file or directory"):
        found(tmp_path / "gone")


def test_a_stamp_follows_links(tmp_path: Path) -> None:
    touch(tmp_path, "one", "two")
    link = tmp_path / "link"
    link.symlink_to("one")
    before = stamps_of([str(link), str(tmp_path / "gone")])
    assert before[str(tmp_path / "gone")] is None
    link.unlink()
    link.symlink_to("two")
    assert stamps_of([str(link)])[str(link)] != before[str(link)]
