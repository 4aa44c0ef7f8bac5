import ssl
from pathlib import Path

from support.receiver import certificate

from lbproxy.tls import client_context


def test_a_client_verifies_certificate_and_name(tmp_path: Path) -> None:
    context = client_context()
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    own = client_context(str(certificate(tmp_path, "DNS:example.org")))
    assert len(own.get_ca_certs()) == 1, "these authorities and no others"
