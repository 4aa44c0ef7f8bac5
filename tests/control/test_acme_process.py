"""The first, self-signed certificates of a start."""

from dataclasses import replace
from pathlib import Path

import pytest

from control.fakes import pool_settings, settings_of
from lbproxy.certificates.judge import read_all
from lbproxy.config.problems import ConfigInvalid
from lbproxy.control.acme_process import environment, make_stand_ins, ordered
from lbproxy.settings import AcmeSettings, CertificateFiles, Settings, TlsSettings


def ordering(file: Path, *domains: str) -> TlsSettings:
    return TlsSettings((CertificateFiles(str(file), str(file)),), acme=AcmeSettings(domains))


def settings(*all_tls: TlsSettings) -> Settings:
    made = settings_of(pool_settings(), listeners=[f"127.0.0.1:{8001 + number}" for number in range(len(all_tls))])
    pairs = zip(made.listeners, all_tls, strict=True)
    return replace(made, listeners=tuple(replace(listener, tls=tls) for listener, tls in pairs))


def test_each_order_without_a_certificate_gets_one(tmp_path: Path) -> None:
    one, broken = ordering(tmp_path / "acme" / "a.pem", "a.example"), ordering(tmp_path / "b.pem", "b.example")
    (tmp_path / "b.pem").write_text("cut off")
    made = settings(one, one, broken)
    assert ordered(made) == (one, broken)
    make_stand_ins(made)
    looks = read_all(made)
    assert {tls.acme.domains: look.found.pairs[0].names for tls, look in looks.items() if tls.acme and look.found} == {
        ("a.example",): ("a.example",),
        ("b.example",): ("b.example",),
    }
    before = (tmp_path / "b.pem").read_bytes()
    make_stand_ins(made)
    assert (tmp_path / "b.pem").read_bytes() == before


def test_before_lbproxy_runs_there_may_be_none(tmp_path: Path) -> None:
    assert read_all(settings(ordering(tmp_path / "a.pem", "a.example"))) == {}


def test_a_directory_that_cannot_be_written_is_one_clear_line() -> None:
    with pytest.raises(ConfigInvalid, match=r"listener.tls.acme: '/proc/none/a.pem' cannot be written: No such file"):
        make_stand_ins(settings(ordering(Path("/proc/none/a.pem"), "a.example")))


def test_the_process_is_told_no_secret() -> None:
    told = environment({"PATH": "/bin", "HOOK_SECRET": "x", "https_proxy": "http://p", "LISTEN_FDS": "1"})
    assert {key: value for key, value in told.items() if key != "PYTHONPATH"} == {
        "PATH": "/bin",
        "https_proxy": "http://p",
    }
