"""What a backend is told of a certificate, as openssl reads it, and what it is told where there is none."""

import ssl
from pathlib import Path
from urllib.parse import unquote

from hypothesis import given
from hypothesis import strategies as st
from support.certificates import certificate, openssl

from lbproxy.wire.client_certificate import certificate_lines


def told(lines: bytes) -> dict[str, str]:
    assert lines.endswith(b"\r\n")
    return dict(line.split(": ", 1) for line in lines.decode("ascii").split("\r\n")[:-1])


def test_a_certificate_is_told_by_subject_and_serial(tmp_path: Path) -> None:
    pair = certificate(tmp_path, subject='/C=DE/O=B\u00fccher, Inc. 100%/CN=Anna "A" M\u00fcller', file="anna")
    fields = told(certificate_lines(ssl.PEM_cert_to_DER_cert(pair.cert.read_text())))
    serial = openssl("x509", "-in", str(pair.cert), "-noout", "-serial").strip().partition("=")[2]
    subject = openssl("x509", "-in", str(pair.cert), "-noout", "-subject", "-nameopt", "RFC2253,-esc_msb,utf8")
    assert list(fields) == ["X-Client-Cert-Verified", "X-Client-Cert-Subject", "X-Client-Cert-Serial"]
    assert fields["X-Client-Cert-Verified"] == "1"
    assert fields["X-Client-Cert-Serial"] == serial
    assert unquote(fields["X-Client-Cert-Subject"]) == subject.strip().partition("=")[2]
    assert fields["X-Client-Cert-Subject"].startswith("CN=Anna%20%5C%22A%5C%22%20M%C3%BCller,O=B%C3%BCcher%5C,%20Inc.")


def test_without_a_certificate_only_that_is_told() -> None:
    assert told(certificate_lines(None)) == {"X-Client-Cert-Verified": "0"}


def test_a_certificate_without_a_subject_or_that_cannot_be_read_names_nobody(tmp_path: Path) -> None:
    pair = certificate(tmp_path, "a.example", subject="/", file="nobody")
    fields = told(certificate_lines(ssl.PEM_cert_to_DER_cert(pair.cert.read_text())))
    assert list(fields) == ["X-Client-Cert-Verified", "X-Client-Cert-Serial"]
    assert told(certificate_lines(b"0\x03abc")) == {"X-Client-Cert-Verified": "1"}


@given(st.binary(max_size=200))
def test_no_bytes_make_a_line_of_their_own(der: bytes) -> None:
    assert set(told(certificate_lines(der))) <= {
        "X-Client-Cert-Verified",
        "X-Client-Cert-Subject",
        "X-Client-Cert-Serial",
    }
