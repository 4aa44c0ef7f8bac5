"""The contexts of https targets, and what a failed handshake is called."""

import ssl
from pathlib import Path

import pytest
from support.certificates import pem_file

from lbproxy.settings import TargetTls
from lbproxy.tls.contexts import BadCertificate
from lbproxy.tls.targets import target_context, token_of


def test_a_context_is_made_once_for_the_same_rules(tmp_path: Path) -> None:
    text = pem_file(tmp_path, "a.example").read_text()
    rules = TargetTls(ca="ca.pem", authorities=text)
    context = target_context(rules)
    assert target_context(TargetTls(ca="ca.pem", authorities=text)) is context
    assert len(context.get_ca_certs()) == 1, "these authorities and no others"
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    careless = target_context(TargetTls(verify=False))
    assert (careless.verify_mode, careless.check_hostname) == (ssl.CERT_NONE, False)


@pytest.mark.parametrize("text", ["", "nothing", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_authorities_that_are_none_trust_nobody(text: str) -> None:
    with pytest.raises(BadCertificate, match=r"ca\.pem cannot be used"):
        target_context(TargetTls(ca="ca.pem", authorities=text))


def test_a_failure_has_the_name_that_rfc_9209_gives_it() -> None:
    assert token_of("certificate not accepted: Hostname mismatch") == "tls_certificate_error"
    assert token_of("tlsv13 alert certificate required") == "tls_alert_received"
    assert token_of("wrong version number") == "tls_protocol_error"
