"""What is read from a certificate is what openssl says of it."""

import contextlib
import re
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.certificates import Pair, authority, certificate, openssl

from lbproxy.wire.certificate import name_text, pem_blocks, read_certificate

MANY = [f"host{number}.example.com" for number in range(300)]
KINDS = {
    "one name": {"names": ["Example.com"]},
    "rsa": {"names": ["example.com"], "key": "rsa"},
    "ed25519": {"names": ["example.com"], "key": "ed25519"},
    "many names": {"names": MANY},
    "wildcard": {"names": ["*.example.com", "example.com"]},
    "idn": {"names": ["xn--bcher-kva.example"], "subject": "/CN=b\u00fccher.example"},
    "addresses": {"names": ["10.0.0.1", "2001:db8::1", "::1", "example.com"]},
    "no names": {"names": [], "subject": "/CN=old.example.com"},
    "no subject": {"names": ["example.com"], "subject": "/"},
    "long subject": {"names": [], "subject": '/C=DE/ST=X/L=Y/O=Acme, Inc. + <Sons>; \\\\ "x"/OU=a/OU=b/CN= #x =y '},
    "a number sign first": {"names": [], "subject": "/CN=#1"},
    "uncommon": {
        "names": [],
        "subject": "/DC=org/DC=example/UID=me/serialNumber=7/emailAddress=a@b.c/title=Dr/SN=Do/GN=X",
    },
    "two in one": {"names": [], "subject": "/CN=a+UID=b/O=c"},
    "control characters": {"names": [], "subject": "/CN=a\tb\x7fc/description=\u65e5\u672c"},
    "long validity": {"names": ["example.com"], "days": (-20_000, 500_000)},
    "authority": {"names": [], "subject": "/CN=Root", "extensions": ["basicConstraints=critical,CA:TRUE,pathlen:3"]},
    "no authority": {"names": ["a.example"], "extensions": ["basicConstraints=CA:FALSE"]},
    "other extensions": {
        "names": [],
        "subject": "/CN=x",
        "extensions": ["subjectAltName=email:a@b.c,URI:http://x/,DNS:a.example", "keyUsage=critical,digitalSignature"],
    },
}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pair]:
    directory = tmp_path_factory.mktemp("certificates")
    return {
        kind: certificate(
            directory,
            *facts["names"],
            file=kind.replace(" ", "-"),
            **{key: value for key, value in facts.items() if key != "names"},
        )
        for kind, facts in KINDS.items()
    }


def der_of(text: bytes) -> bytes:
    return next(der for label, der in pem_blocks(text) if label == "CERTIFICATE")


@pytest.mark.parametrize("kind", KINDS)
def test_the_facts_are_those_that_openssl_prints(kind: str, pairs: dict[str, Pair]) -> None:
    path = pairs[kind].cert
    found = read_certificate(der_of(path.read_bytes()))
    options = ["-nameopt", "RFC2253,utf8,-esc_msb", "-dateopt", "iso_8601", "-subject", "-issuer", "-serial", "-dates"]
    lines = openssl("x509", "-in", str(path), "-noout", *options).splitlines()
    said = {key: value for key, _, value in (line.partition("=") for line in lines)}
    assert found.subject == said["subject"]
    assert found.issuer == said["issuer"]
    assert found.serial == said["serial"]
    assert found.not_before == datetime.fromisoformat(said["notBefore"].replace("Z", "+00:00")).timestamp()
    assert found.not_after == datetime.fromisoformat(said["notAfter"].replace("Z", "+00:00")).timestamp()
    text = openssl("x509", "-in", str(path), "-noout", "-text")
    assert list(found.names) == [name.lower() for name in re.findall(r"DNS:([^,\n]+)", text)]
    assert len(found.addresses) == text.count("IP Address:")
    assert found.is_authority == ("CA:TRUE" in text)


def test_addresses_are_written_in_their_short_form(pairs: dict[str, Pair]) -> None:
    assert read_certificate(der_of(pairs["addresses"].cert.read_bytes())).addresses == (
        "10.0.0.1",
        "2001:db8::1",
        "::1",
    )


def test_a_chain_is_read_in_its_order(tmp_path: Path) -> None:
    root = authority(tmp_path, "Root")
    middle = authority(tmp_path, "Middle", by=root)
    pair = certificate(tmp_path, "example.com", by=middle)
    leaf, above = (read_certificate(der) for _, der in pem_blocks(pair.cert.read_bytes()))
    assert (leaf.issuer, leaf.issuer_name) == (above.subject, above.subject_name)
    assert (leaf.is_authority, above.is_authority) == (False, True)


def test_text_around_the_blocks_line_ends_and_keys_do_not_matter(pairs: dict[str, Pair]) -> None:
    pair = pairs["one name"]
    text, key = pair.cert.read_bytes(), pair.key.read_bytes()
    plain = pem_blocks(text)
    assert pem_blocks(text.replace(b"\n", b"\r\n")) == plain
    assert pem_blocks(b"Bag Attributes\n  friendlyName: x\n" + text + b"\n# the end") == plain
    assert pem_blocks(bytearray(key + text)) == [("PRIVATE KEY", b""), *plain], "a key is noticed and not decoded"
    assert pem_blocks(text.replace(b"BEGIN CERT", b"BEGIN X509 CERT").replace(b"END CERT", b"END X509 CERT")) == [
        ("X509 CERTIFICATE", plain[0][1])
    ]
    assert pem_blocks(b"nothing") == []


def test_a_block_that_is_cut_short_is_said(pairs: dict[str, Pair]) -> None:
    text = pairs["one name"].cert.read_bytes()
    for wrong in (text[:-10], text[:100], text[:100] + text, text[:40]):
        with pytest.raises(ValueError, match="the block BEGIN CERTIFICATE has no END CERTIFICATE"):
            pem_blocks(wrong)
    with pytest.raises(ValueError, match="is not base64"):
        pem_blocks(text.replace(b"MII", b"M!I", 1))


def test_bytes_that_are_cut_short_anywhere_are_no_certificate(pairs: dict[str, Pair]) -> None:
    der = der_of(pairs["addresses"].cert.read_bytes())
    for end in range(len(der)):
        with pytest.raises(ValueError, match="cannot be read"):
            read_certificate(der[:end])
    with pytest.raises(ValueError, match="cannot be read"):
        read_certificate(der + b"\0\0")


@given(place=st.integers(0, 2000), byte=st.integers(0, 255), noise=st.binary(max_size=64))
def test_nonsense_is_refused_and_nothing_else_is_raised(place: int, byte: int, noise: bytes, pairs) -> None:
    der = bytearray(der_of(pairs["addresses"].cert.read_bytes()))
    der[place % len(der)] = byte
    for data in (bytes(der), noise):
        with contextlib.suppress(ValueError):
            read_certificate(data)


def test_what_has_no_name_or_is_no_text_is_written_in_hexadecimal_digits() -> None:
    other = bytes.fromhex("310c300a06032a03040c03616263")  # 1.2.3.4
    broken = bytes.fromhex("310c300a06035504030c03ff6263")  # CN, not UTF-8
    assert name_text(other) == "1.2.3.4=#0C03616263"
    assert name_text(broken) == "CN=#0C03FF6263"
    assert name_text(b"") == ""
