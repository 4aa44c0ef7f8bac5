"""Mistakes in certificates are mistakes of the configuration, with their line."""

from pathlib import Path

import pytest
from support.certificates import certificate

from lbproxy.certificates.judge import found_in, read_all, remarks
from lbproxy.config.load import load
from lbproxy.config.problems import ConfigInvalid
from lbproxy.settings import Settings

CONFIG = """[[listener]]
address = ":8443"
tls = {{ {one} }}
[[listener]]
address = ":8444"
tls = {{ {two} }}
[pool.web]
targets = ["127.0.0.1:9"]
[admin]
address = "127.0.0.1:9901"
tls = {{ {three} }}
"""


def settings(tmp_path: Path, one: str, two: str, three: str) -> Settings:
    file = tmp_path / "lb.toml"
    file.write_text(CONFIG.format(one=one, two=two, three=three))
    return load(file)


def test_every_mistake_is_told_at_once_with_its_line(tmp_path: Path) -> None:
    a, b = (certificate(tmp_path, f"{name}.example") for name in "ab")
    wrong = tmp_path / "wrong.key"
    wrong.write_bytes(a.key.read_bytes())
    mixed = f'certs = [{{ {a.tls} }}, {{ cert = "{b.cert}", key = "{wrong}" }}]'
    with pytest.raises(ConfigInvalid) as caught:
        read_all(settings(tmp_path, mixed, 'directory = "gone"', f'cert = "{a.cert}", key = "none.key"'))
    errors = [line for line in caught.value.text.splitlines() if "error:" in line]
    file = tmp_path / "lb.toml"
    key = CONFIG.format(one=mixed, two="", three="").splitlines()[2].rindex("key =") + 1
    assert errors == [
        f"{file}:3:{key}: error: listener.tls.certs.key: '{wrong}' cannot be used with '{b.cert}': "
        "the private key is not that of the certificate",
        f"{file}:6:9: error: listener.tls.directory: '{tmp_path}/gone' cannot be read: no such file or directory",
        f"{file}:11:{errors[2].split(':')[2]}: error: admin.tls.key: '{tmp_path}/none.key' does not exist",
    ]


def test_settings_that_are_alike_share_what_is_read(tmp_path: Path) -> None:
    a = certificate(tmp_path, "a.example")
    looks = read_all(settings(tmp_path, a.tls, a.tls, a.tls))
    assert len(looks) == 1


def test_what_is_served_already_may_be_broken_by_now(tmp_path: Path) -> None:
    a = certificate(tmp_path, "a.example")
    before = found_in(read_all(settings(tmp_path, a.tls, a.tls, a.tls)))
    a.cert.write_text("")
    assert read_all(settings(tmp_path, a.tls, a.tls, a.tls), before) == {}
    stricter = settings(tmp_path, a.tls, f'{a.tls}, min_version = "1.3"', a.tls)
    (look,) = read_all(stricter, before).values()
    assert look.found.pairs[0].names == ("a.example",)
    assert [defect.why for defect in look.kept] == ["is empty"]
    with pytest.raises(ConfigInvalid):
        read_all(stricter)


def test_a_remark_stands_once_where_the_file_is_named(tmp_path: Path) -> None:
    a = certificate(tmp_path, "a.example")
    a.key.chmod(0o644)
    found = settings(tmp_path, a.tls, a.tls, a.tls)
    ((path, remark),) = remarks(found, found_in(read_all(found)))
    assert path == ("listener", 0, "tls", "key")
    assert "everybody can read" in str(remark)
