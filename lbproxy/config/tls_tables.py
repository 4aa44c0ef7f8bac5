"""The table `tls` of a listener and of [admin], and `acme` inside it: see schema.py."""

from typing import Annotated, ClassVar, Literal

from lbproxy.config import acme_values, kinds
from lbproxy.config.kinds import Facts
from lbproxy.config.problems import shown
from lbproxy.config.table import WHOLE, Read, Table
from lbproxy.config.values import filled
from lbproxy.settings import CertificateFiles

_PAIR_KEYS = ("cert", "key")


def pem_file(value: object) -> str:
    """The path of a PEM file. A private key that stands in the place of a path is not quoted."""
    if isinstance(value, str) and "-----BEGIN" in value:
        raise ValueError("expected the path of a PEM file, got the PEM text itself")
    return filled(value)


def certificate_files(value: object) -> CertificateFiles:
    """A table with the two paths."""
    example = '{ cert = "cert.pem", key = "key.pem" }'
    if not isinstance(value, dict):
        raise ValueError(f"expected a table such as {example}, got {shown(value)}")
    for key in value:
        if key not in _PAIR_KEYS:
            raise ValueError(f"unknown key {shown(key)} (there is: cert, key)")
    for key in _PAIR_KEYS:
        if key not in value:
            raise ValueError(f"'{key}' is missing (write {example})")
    return CertificateFiles(*(pem_file(value[key]) for key in _PAIR_KEYS))


PemFile = Annotated[str, Read(pem_file), kinds.PEM_FILE]
Pair = Annotated[CertificateFiles, Read(certificate_files), kinds.CERTIFICATE_FILES]


Domain = Annotated[str, Read(acme_values.domain), kinds.HOST]
Email = Annotated[str, Read(acme_values.email), kinds.EMAIL]
AcmeServer = Annotated[str, Read(acme_values.server), kinds.ACME_SERVER]


class AcmeTable(Table):
    """A certificate that lbproxy gets, and renews, from an authority by ACME (needs lbproxy[acme])."""

    applies: ClassVar[str] = WHOLE

    domains: Annotated[list[Domain], Facts(["example.com", "www.example.com"])]
    """The host names of the certificate. A listener without tls must answer for each of them at port 80."""
    email: Annotated[Email | None, Facts("ops@example.com", "none")] = None
    """The address that the authority may write to."""
    server: Annotated[AcmeServer | None, Facts("https://acme.example/directory")] = None
    """The ACME directory of the authority; the default is Let's Encrypt, whose terms you agree to by this key."""
    ca: Annotated[PemFile | None, Facts("pebble.pem", "the system's authorities")] = None
    """A file of authorities: the ACME server itself must have a certificate of one of these."""


class TlsTable(Table):
    """TLS: cert and key, or certs, or a directory, or acme. The files are read again when they change."""

    applies: ClassVar[str] = WHOLE

    cert: Annotated[PemFile | None, Facts("cert.pem", "none: then there are certs or a directory")] = None
    """The certificate, and behind it the intermediate ones, such as the fullchain.pem of certbot."""
    key: Annotated[PemFile | None, Facts("key.pem", "none: then there are certs or a directory")] = None
    """The private key of the certificate, without a pass phrase."""
    certs: Annotated[
        list[Pair] | None,
        Facts([{"cert": "a.pem", "key": "a.key"}, {"cert": "b.pem", "key": "b.key"}], "none: then there is one"),
    ] = None
    """Several certificates. A client gets the one for the name it asks for: exact, then wildcard, then the first."""
    directory: Annotated[PemFile | None, Facts("certs", "none: then there are cert and key, or certs")] = None
    """A directory of certificates: NAME.pem with both, NAME.crt + NAME.key, NAME/fullchain.pem + NAME/privkey.pem."""
    min_version: Annotated[Literal["1.2", "1.3"] | None, Facts("1.3")] = None
    """The oldest version of TLS that is spoken."""
    client_ca: Annotated[PemFile | None, Facts("clients-ca.pem", "none: no certificate is asked for")] = None
    """A file of certificate authorities: clients are asked for a certificate of one of these."""
    client_auth: Annotated[Literal["require", "request"] | None, Facts("request", '"require" with client_ca')] = None
    """Whether a client must have a certificate, or may come without; one of another authority is always refused."""
    acme: AcmeTable | None = None
