"""What the table `tls` may hold, and what it becomes in the settings."""

import pytest

from lbproxy.config.tls_tables import TlsTable, certificate_files, pem_file
from lbproxy.settings import CertificateFiles, TlsSettings

LISTENER = """
[[listener]]
address = ":8443"
{keys}
[pool.web]
command = "true {{port}}"
"""


def tls_of(loaded, keys) -> TlsSettings:
    return loaded(LISTENER.format(keys=keys)).listeners[0].tls


def test_one_pair_several_or_a_directory_become_absolute_paths(loaded, tmp_path):
    one, two = (CertificateFiles(f"{tmp_path}/{name}.pem", f"{tmp_path}/{name}.key") for name in "ab")
    assert tls_of(loaded, 'tls = { cert = "a.pem", key = "a.key" }') == TlsSettings(certs=(one,))
    several = 'tls = { certs = [{ cert = "a.pem", key = "a.key" }, { cert = "b.pem", key = "b.key" }] }'
    assert tls_of(loaded, several) == TlsSettings(certs=(one, two))
    assert tls_of(loaded, 'tls = { directory = "certs", min_version = "1.3" }') == TlsSettings(
        directory=f"{tmp_path}/certs", min_version="1.3"
    )
    assert tls_of(loaded, "") is None


def test_client_certificates_are_required_where_nothing_else_is_said(loaded, tmp_path):
    keys = 'tls = { cert = "a.pem", key = "a.key", client_ca = "ca.pem" }'
    assert tls_of(loaded, keys).client_auth == "require"
    assert tls_of(loaded, keys.replace(" }", ', client_auth = "request" }')).client_auth == "request"
    assert tls_of(loaded, keys).client_ca == f"{tmp_path}/ca.pem"


def test_admin_has_the_same_table(loaded, tmp_path):
    admin = '[admin]\naddress = "127.0.0.1:1"\ntls = { cert = "a.pem", key = "a.key" }'
    settings = loaded(LISTENER.format(keys="") + admin)
    assert settings.admin.tls == TlsSettings(certs=(CertificateFiles(f"{tmp_path}/a.pem", f"{tmp_path}/a.key"),))


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("x", "expected a table such as"),
        ({"cert": "a"}, "'key' is missing"),
        ({"cert": "a", "key": "b", "chain": "c"}, "unknown key 'chain'"),
        ({"cert": 1, "key": "b"}, "expected a string"),
    ],
)
def test_a_pair_has_a_certificate_and_a_key(value, why):
    with pytest.raises(ValueError, match=why):
        certificate_files(value)


def test_a_private_key_in_the_place_of_a_path_is_not_shown(report):
    with pytest.raises(ValueError, match="the PEM text itself"):
        pem_file("-----BEGIN PRIVATE KEY-----\nhunter2")
    said = report(LISTENER.format(keys='tls = { cert = "a.pem", key = "-----BEGIN PRIVATE KEY-----\\nhunter2" }'))
    assert "hunter2" not in said
    assert "the path of a PEM file, got the PEM text itself" in said


def test_nothing_is_given_by_default():
    assert TlsTable.model_validate({}).given() == {}
