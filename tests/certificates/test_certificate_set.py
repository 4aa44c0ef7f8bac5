"""What one `tls` means now, and what stays in use when its files change."""

import os
import shutil
import time
from pathlib import Path

import pytest
from support.certificates import Pair, authority, certificate

from lbproxy.certificates.certificate_set import assembled, look_at, trace_of
from lbproxy.settings import CertificateFiles, TlsSettings

LATER_S = 3600.0  # every file is settled then
DAY_S = 86400


@pytest.fixture(scope="module")
def spare(tmp_path_factory: pytest.TempPathFactory) -> list[Pair]:
    return [certificate(tmp_path_factory.mktemp("spare"), f"spare{number}.example") for number in range(2)]


def named(*pairs: Pair, **more: str) -> TlsSettings:
    return TlsSettings(certs=tuple(CertificateFiles(str(pair.cert), str(pair.key)) for pair in pairs), **more)


def put(source: Pair, target: Pair) -> None:
    shutil.copy(source.cert, target.cert)
    shutil.copy(source.key, target.key)


def later() -> float:
    return time.time() + LATER_S


def names(look) -> list[str]:
    return [name for pair in look.found.pairs for name in pair.names]


def test_what_has_not_changed_is_the_same_object(tmp_path: Path) -> None:
    pair = certificate(tmp_path, "a.example")
    first = look_at(named(pair))
    assert (names(first), first.defects) == (["a.example"], ())
    assert look_at(named(pair), first.found, later()).found is first.found
    assert first.trace == trace_of(named(pair))
    os.utime(pair.cert, (1, 1))
    assert first.trace != trace_of(named(pair))
    again = look_at(named(pair), first.found, later())
    assert again.found is first.found, "touched, with the same content"


@pytest.mark.parametrize("how", ["copy", "rename", "link"])
def test_a_pair_that_has_changed_is_read_anew_and_the_others_stay(tmp_path: Path, spare: list[Pair], how: str) -> None:
    one, two = (certificate(tmp_path, f"{name}.example") for name in "ab")
    first = look_at(named(one, two))
    if how == "copy":
        put(spare[0], two)
    else:
        for old, new in ((two.cert, spare[0].cert), (two.key, spare[0].key)):
            fresh = tmp_path / "fresh"
            fresh.symlink_to(new) if how == "link" else shutil.copy(new, fresh)
            fresh.rename(old)
    second = look_at(named(one, two), first.found, later())
    assert names(second) == ["a.example", "spare0.example"]
    assert second.found.pairs[0] is first.found.pairs[0]


def test_a_broken_pair_keeps_the_older_version(tmp_path: Path, spare: list[Pair]) -> None:
    pair = certificate(tmp_path, "a.example")
    first = look_at(named(pair))
    shutil.copy(spare[0].cert, pair.cert)  # half of a change
    half = look_at(named(pair), first.found, later())
    assert half.found is first.found
    assert [defect.why.rpartition(": ")[2] for defect in half.kept] == [
        "the private key is not that of the certificate"
    ]
    assert half.missing == []
    pair.key.unlink()
    assert [defect.why for defect in look_at(named(pair), first.found, later()).kept] == ["does not exist"]
    put(spare[0], pair)
    assert names(look_at(named(pair), first.found, later())) == ["spare0.example"]


def test_without_an_older_version_there_is_nothing_to_keep(tmp_path: Path, spare: list[Pair]) -> None:
    pair = Pair(spare[0].cert, spare[1].key)
    look = look_at(named(pair))
    assert look.found is None
    assert len(look.missing) == 1
    look = look_at(TlsSettings(directory=str(tmp_path)))
    assert look.found is None
    assert [defect.file for defect in look.missing] == [str(tmp_path)]


def test_an_expired_certificate_is_refused_where_it_is_named(tmp_path: Path) -> None:
    old = certificate(tmp_path / "d", "old.example", days=(-30, -1))
    assert "expired on" in look_at(named(old)).missing[0].why
    good = certificate(tmp_path, "good.example")
    first = look_at(named(good))
    put(old, good)
    second = look_at(named(good), first.found, later())
    assert second.found is first.found
    assert "expired on" in second.kept[0].why
    look = look_at(TlsSettings(directory=str(tmp_path / "d")))
    assert names(look) == ["old.example"], "one that was forgotten keeps no others from being served"


def test_a_directory_is_followed(tmp_path: Path, spare: list[Pair]) -> None:
    tls = TlsSettings(directory=str(tmp_path))
    one = certificate(tmp_path, "a.example")
    first = look_at(tls)
    two = certificate(tmp_path, "b.example")
    assert trace_of(tls) != first.trace
    second = look_at(tls, first.found, later())
    assert names(second) == ["a.example", "b.example"]
    shutil.copy(spare[0].key, two.key)
    third = look_at(tls, second.found, later())
    assert third.found is second.found
    assert len(third.kept) == 1
    new = certificate(tmp_path, "c.example")
    shutil.copy(spare[0].key, new.key)
    fourth = look_at(tls, second.found, later())
    assert fourth.found is second.found
    assert [len(fourth.kept), len(fourth.missing)] == [1, 1]
    for file in (one.cert, one.key, new.cert, new.key):
        file.unlink()
    two.key.unlink()
    fifth = look_at(tls, second.found, later())
    assert names(fifth) == ["b.example"], "its certificate alone is half of a change"
    assert [pair.names for pair in fifth.gone] == [("a.example",)]
    two.cert.unlink()
    last = look_at(tls, fifth.found, later())
    assert last.found is fifth.found, "the last one stays"
    assert "holds no certificate" in last.kept[0].why


def test_a_certificate_below_a_directory_that_comes_late_is_seen(tmp_path: Path) -> None:
    tls = TlsSettings(directory=str(tmp_path))
    certificate(tmp_path, "a.example")
    (tmp_path / "b.example").mkdir()
    before = trace_of(tls)
    pair = certificate(tmp_path / "elsewhere", "b.example")
    pair.cert.rename(tmp_path / "b.example/fullchain.pem")
    pair.key.rename(tmp_path / "b.example/privkey.pem")
    assert trace_of(tls) != before
    assert names(look_at(tls)) == ["a.example", "b.example"]


def test_client_authorities_are_read_anew_and_kept(tmp_path: Path) -> None:
    ca, other = authority(tmp_path, "One"), authority(tmp_path, "Two")
    tls = named(certificate(tmp_path, "a.example"), client_ca=str(ca.cert))
    first = look_at(tls)
    assert look_at(tls, first.found, later()).found is first.found
    shutil.copy(other.cert, ca.cert)
    second = look_at(tls, first.found, later())
    assert [one.subject for one in second.found.client_ca.certificates] == ["CN=Two"]
    assert second.found.pairs == first.found.pairs
    ca.cert.write_text("")
    third = look_at(tls, second.found, later())
    assert third.found is second.found
    assert [defect.why for defect in third.kept] == ["is empty"]
    assert look_at(tls).found is None


def test_other_settings_with_the_same_files_have_them_as_their_older_version(tmp_path: Path) -> None:
    pair = certificate(tmp_path, "a.example")
    first = look_at(named(pair))
    stricter = named(pair, min_version="1.3")
    assert assembled(stricter, [first.found]).pairs == first.found.pairs
    assert assembled(named(pair, certificate(tmp_path, "b.example")), [first.found]) is None
    assert assembled(named(pair, client_ca="/x"), [first.found]) is None
    assert assembled(TlsSettings(directory="/x"), [first.found]) is None


def test_a_secret_of_kubernetes_is_followed_to_its_next_version(tmp_path: Path, spare: list[Pair]) -> None:
    for number, pair in enumerate(spare):
        version = tmp_path / f"..2026_01_0{number}"
        version.mkdir()
        shutil.copy(pair.cert, version / "tls.crt")
        shutil.copy(pair.key, version / "tls.key")
    (tmp_path / "..data").symlink_to("..2026_01_00")
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    tls = TlsSettings(directory=str(tmp_path))
    first = look_at(tls)
    assert names(first) == ["spare0.example"]
    (tmp_path / "..data_tmp").symlink_to("..2026_01_01")
    (tmp_path / "..data_tmp").rename(tmp_path / "..data")
    assert trace_of(tls) != first.trace
    second = look_at(tls, first.found, later())
    assert (names(second), second.defects) == (["spare1.example"], ())


def test_a_renewal_of_certbot_is_followed(tmp_path: Path, spare: list[Pair]) -> None:
    """New files in archive/, then four links of live/ one after the other."""
    live, archive = tmp_path / "live/example.com", tmp_path / "archive/example.com"
    live.mkdir(parents=True)
    archive.mkdir(parents=True)

    def link(name: str, number: int) -> None:
        (live / "new").symlink_to(f"../../archive/example.com/{name}{number}.pem")
        (live / "new").rename(live / f"{name}.pem")

    for number, pair in enumerate(spare):
        shutil.copy(pair.cert, archive / f"fullchain{number}.pem")
        shutil.copy(pair.key, archive / f"privkey{number}.pem")
    for name in ("privkey", "fullchain"):
        link(name, 0)
    tls = TlsSettings(directory=str(tmp_path / "live"))
    first = look_at(tls)
    assert names(first) == ["spare0.example"]
    link("privkey", 1)
    half = look_at(tls, first.found, later())
    assert (half.found is first.found, len(half.kept)) == (True, 1)
    link("fullchain", 1)
    assert names(look_at(tls, half.found, later())) == ["spare1.example"]
