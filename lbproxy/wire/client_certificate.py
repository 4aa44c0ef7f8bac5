"""The fields that tell a backend which certificate its client has shown (CONTRACT.md 2, client_ca).

Where a listener asks for certificates, its backends get X-Client-Cert-Verified with each request; what clients say in
these fields is removed on every listener (lines.py).
"""

from urllib.parse import quote

from lbproxy.wire.certificate import read_certificate

_PLAIN = "!$&'()*+,/:;=?@"  # readable as it is, besides letters, digits and -._~


def certificate_lines(der: bytes | None) -> bytes:
    """Each line with its end. `der`: a certificate that OpenSSL has verified; None: the client has shown none."""
    if der is None:
        return b"X-Client-Cert-Verified: 0\r\n"
    lines = ["X-Client-Cert-Verified: 1"]
    try:
        certificate = read_certificate(der)
    except ValueError:
        pass  # verified, but nothing can be said of it: a backend that goes by the subject lets nobody in
    else:
        if certificate.subject:
            lines.append(f"X-Client-Cert-Subject: {quote(certificate.subject, safe=_PLAIN)}")
        lines.append(f"X-Client-Cert-Serial: {certificate.serial}")
    return "".join(f"{line}\r\n" for line in lines).encode("ascii")
